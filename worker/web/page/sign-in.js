// Signs in with the ticket of a link, and explains why an earlier try failed.

const field = document.getElementById("token");
const WRONG = { // not ids of elements: the browser would move the focus there
  "#refused": "That is not the token. Try again.",
  "#expired": "That link has been used, or is more than five minutes old. metasync page prints another.",
};

// Focuses the field and makes the error its description, so that a screen reader says it.
function complain(text) {
  document.getElementById("wrong").textContent = text;
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", "wrong");
  field.focus();
}

function arrive() {
  const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
  const wrong = WRONG[location.hash];
  if (wrong) complain(wrong);
  if (!ticket) return;
  history.replaceState(null, "", "/sign-in"); // it is used now: keep it out of the history
  field.required = false;
  document.getElementById("ticket").value = ticket;
  document.getElementById("form").submit();
}

addEventListener("hashchange", arrive);
arrive();
