"""The files of certificates that a queue's URL names: a driver's error does not say which file it is about."""

import ssl

from worker.queue.errors import QueueMisnamed


def load_authorities(context: ssl.SSLContext, option: str, path: str) -> None:
    """Load a file of authorities, or of revoked certificates.

    Args:
        option: of the queue's URL, which names the file.

    Raises:
        QueueMisnamed: it cannot be used.
    """
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise QueueMisnamed(f"{option}, an option of the queue URL: {path!a} cannot be used: {error}") from None


def load_certificate(context: ssl.SSLContext, options: str, path: str, key: str | None, password: str = "") -> None:
    """Load a client's certificate and its key.

    Args:
        options: of the queue's URL, which name the files.
        key: its file; None if the certificate's has it, too.

    Raises:
        QueueMisnamed: they cannot be used.
    """
    try:
        context.load_cert_chain(path, key, lambda: password)  # without a password, it would ask on the terminal
    except (OSError, ValueError) as error:
        raise QueueMisnamed(f"{options}, options of the queue URL, cannot be used: {error}") from None
