// The receipt: shows what happens while it happens, until the drop is gone.

import { enliven } from "./page.js";

const receipt = document.getElementById("receipt");
const live = document.getElementById("live");

function said(on) {
  live.hidden = false;
  live.classList.toggle("off", !on);
  live.textContent = on ? live.dataset.on : live.dataset.off;
  document.getElementById("look_again").hidden = on;
}

function follow() {
  // Shown again from the history, the address may have a fragment or query.
  const events = new EventSource(`${window.location.pathname}/events?page=1`);
  events.addEventListener("open", () => said(true));
  events.addEventListener("page", ({ data }) => {
    const page = new DOMParser().parseFromString(JSON.parse(data).html, "text/html");
    receipt.replaceChildren(...page.body.childNodes);
    enliven(receipt);
  });
  events.addEventListener("end", () => {
    events.close();
    for (const id of ["live", "look_again", "delete"]) document.getElementById(id).hidden = true;
  });
  // It tries again by itself, except where the server refused: too many such pages are open.
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) said(false);
  });
}

if (live) follow();
