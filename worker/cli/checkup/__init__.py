"""What `metasync doctor` looks at: a module for each subject, and the probe that writes."""
