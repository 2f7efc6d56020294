// The operator's page: looks again by itself while somebody looks at it.

import { enliven } from "./page.js";

const EVERY_MS = 10_000;

async function lookAgain() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch("status", { headers: { Accept: "text/html" } });
  } catch {
    return; // the next time
  }
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("changing");
  const shown = document.getElementById("changing");
  // Whoever reads in the list is not thrown out of it.
  if (!fresh || shown.contains(document.activeElement)) return;
  shown.replaceWith(fresh);
  enliven(fresh);
}

setInterval(lookAgain, EVERY_MS);
