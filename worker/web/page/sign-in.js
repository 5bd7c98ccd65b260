// Signs in with the ticket of a link, and says what was wrong with what came before.

const field = document.getElementById("token");
const WRONG = { // none of them is an element's id: to such, browsers go, and take the focus from the field
  "#refused": "That is not the token. Try again.",
  "#expired": "That link has been used, or is more than five minutes old. metasync page prints another.",
};

// Goes to the field, which names what is wrong as its description, and so has it read out.
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
  history.replaceState(null, "", "/sign-in"); // it is used now, and belongs into no history
  field.required = false;
  document.getElementById("ticket").value = ticket;
  document.getElementById("form").submit();
}

addEventListener("hashchange", arrive);
arrive();
