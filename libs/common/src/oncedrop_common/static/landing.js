// The landing page: says what happens once the button was pressed.

import "./page.js";

const form = document.getElementById("take");

form.addEventListener("submit", () => {
  // A refusal comes as another page. What is shown here is for who got the file and stays.
  setTimeout(() => {
    const taken = document.getElementById("taken");
    taken.hidden = false;
    form.hidden = true;
    taken.focus();
  }, 1500);
});
// Shown again from the history: the button is there again, with the claim it had.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) form.hidden = false;
});
