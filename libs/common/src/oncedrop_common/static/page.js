// What every page may have: times that become local, a countdown, buttons that copy.

import { duration, moment } from "./words.js";

const TICK_MS = 1000;
const DONE_MS = 3000;

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.title = time.dateTime;
    const short = Boolean(time.closest("td"));
    const precise = short || Boolean(time.closest("li"));
    time.textContent = moment(new Date(time.dateTime), { precise, short });
  }
}

function countDown(root) {
  for (const left of root.querySelectorAll("[data-until]")) {
    // The server's clock counts, not this machine's.
    const until = Number(left.dataset.until) - Number(left.dataset.now);
    const began = performance.now();
    const show = () => {
      const seconds = (until - (performance.now() - began)) / 1000;
      left.textContent = seconds > 0 ? duration(seconds) : left.dataset.over;
      if (seconds <= 0 || !left.isConnected) clearInterval(timer);
    };
    const timer = setInterval(show, TICK_MS);
    show();
  }
}

async function copyText(input) {
  input.select();
  try {
    await navigator.clipboard.writeText(input.value);
    return true;
  } catch {
    // Only pages under https, or on this machine, have a clipboard.
    return document.execCommand("copy");
  }
}

function copyButtons(root) {
  for (const button of root.querySelectorAll("button[data-copy]")) {
    const input = document.getElementById(button.dataset.copy);
    const label = button.querySelector("span");
    const before = label.textContent;
    const spoken = button.parentElement.querySelector("[role=status]");
    button.hidden = false;
    button.addEventListener("click", async () => {
      const said = (await copyText(input)) ? button.dataset.done : button.dataset.byHand;
      label.textContent = said;
      spoken.textContent = said;
      setTimeout(() => {
        label.textContent = before;
        spoken.textContent = "";
      }, DONE_MS);
    });
    input.addEventListener("focus", () => input.select());
  }
}

export function enliven(root) {
  localTimes(root);
  countDown(root);
  copyButtons(root);
}

// Another page's content in place of this one's: what the server answered to a script.
export function show(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  document.title = page.title;
  document.querySelector("main").replaceWith(page.querySelector("main"));
  enliven(document.querySelector("main"));
  const heading = document.querySelector("h1");
  // Where a screen reader goes on.
  heading.tabIndex = -1;
  heading.focus();
  window.scrollTo(0, 0);
}

enliven(document);
