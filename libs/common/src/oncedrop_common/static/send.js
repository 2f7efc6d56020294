// The send page: choose, drop or paste; upload with progress; cancel, try again.

import { show } from "./page.js";
import { duration, fill, percent, size } from "./words.js";

const SPEED_OVER_MS = 5000;
const SPOKEN_STEP = 0.25;
const HTML = "text/html";

const form = document.getElementById("send");
const part = (id) => document.getElementById(id);
const words = form.dataset;
const limits = { bytes: Number(words.maxBytes), files: Number(words.maxFiles) };

// What is chosen: files by the path they will have in the zip.
let chosen = [];
let request = null;

function begin() {
  form.classList.add("enhanced");
  part("drop_hint").hidden = false;
  part("file").required = false;
  const folder = Object.assign(document.createElement("input"), {
    type: "file", multiple: true, webkitdirectory: true, hidden: true,
  });
  part("choose_folder").hidden = !("webkitdirectory" in folder);
  part("choose_folder").addEventListener("click", () => folder.click());
  for (const input of [part("file"), folder]) {
    input.addEventListener("change", () => {
      add([...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
      input.value = "";
    });
  }
  form.addEventListener("submit", (event) => { event.preventDefault(); send(); });
  part("cancel").addEventListener("click", () => request?.abort());
  part("retry").addEventListener("click", send);
  part("back").addEventListener("click", () => stage("choose"));
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length && !request) add(files.map((file) => ({ file, path: file.name })));
  });
  dropping();
  window.addEventListener("beforeunload", (event) => { if (request) event.preventDefault(); });
  // A browser that comes back by its history may have kept what was chosen.
  if (part("file").files.length) part("file").dispatchEvent(new Event("change"));
}

// Files that are dropped, whole folders too.

function dropping() {
  const zone = part("dropzone");
  const over = (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    zone.classList.toggle("over", !request);
  };
  document.addEventListener("dragenter", over);
  document.addEventListener("dragover", over);
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zone.classList.remove("over");
  });
  document.addEventListener("drop", async (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    zone.classList.remove("over");
    if (request) return;
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
    if (entries.some((entry) => entry?.isDirectory)) {
      add((await Promise.all(entries.filter(Boolean).map((entry) => walk(entry, "")))).flat());
    } else {
      add([...event.dataTransfer.files].map((file) => ({ file, path: file.name })));
    }
  });
}

async function walk(entry, above) {
  const path = above + entry.name;
  if (entry.isFile) {
    return [{ file: await new Promise((done, failed) => entry.file(done, failed)), path }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // A reader hands out a hundred at a time.
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return found;
    found.push(...(await Promise.all(some.map((one) => walk(one, `${path}/`)))).flat());
    if (found.length > limits.files) return found;
  }
}

function add(more) {
  // The same file chosen twice is one; another one of its name is numbered by the server.
  const key = ({ file, path }) => `${file.size} ${file.lastModified} ${path}`;
  chosen = [...new Map([...chosen, ...more].map((one) => [key(one), one])).values()];
  list();
}

function list() {
  const rows = chosen.map((one) => {
    const { file, path } = one;
    const row = part("file_row").content.firstElementChild.cloneNode(true);
    row.querySelector(".filename").textContent = path;
    row.querySelector(".number").textContent = size(file.size);
    const remove = row.querySelector("button");
    remove.setAttribute("aria-label", fill(words.remove, { name: path }));
    remove.addEventListener("click", () => {
      chosen = chosen.filter((other) => other !== one);
      list();
      (part("files").querySelector("button") ?? part("file")).focus();
    });
    return row;
  });
  part("files").replaceChildren(...rows);
  part("files").hidden = !rows.length;
  const values = { number: chosen.length, size: size(total()) };
  part("total").textContent = chosen.length > 1 ? fill(words.total, values) : "";
  complain(objection());
}

const total = () => chosen.reduce((sum, { file }) => sum + file.size, 0);

// What the server would refuse, told before a byte is sent.
function objection() {
  if (total() > limits.bytes) {
    return fill(words.tooLarge, { size: size(total()), limit: size(limits.bytes) });
  }
  if (chosen.length > limits.files) {
    return fill(words.tooMany, { number: chosen.length, limit: limits.files });
  }
  return "";
}

function complain(text) {
  part("error").textContent = text;
  part("error").hidden = !text;
}

function stage(name) {
  for (const id of ["choose", "uploading", "failed"]) part(id).hidden = id !== name;
}

// The upload.

async function send() {
  const problem = chosen.length ? objection() : words.nothing;
  complain(problem);
  if (problem) {
    part("error").focus();
    return;
  }
  const data = new FormData();
  for (const [name, value] of new FormData(form)) {
    if (typeof value === "string" && value) data.append(name, value);
  }
  if (part("upload_token") && !(await admitted(data))) return;
  for (const { file, path } of chosen) data.append("file", file, path);
  stage("uploading");
  part("uploading_heading").focus();
  request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.setRequestHeader("Accept", HTML);
  request.upload.addEventListener("progress", progress());
  request.addEventListener("load", answered);
  request.addEventListener("error", () => fail(words.offline));
  request.addEventListener("abort", () => fail(words.cancelled));
  request.send(data);
}

// A wrong token is told before a long upload, not by cutting it.
async function admitted(data) {
  try {
    // Without a file it is refused either way, and the token is judged first.
    const answer = await fetch(form.action, { method: "POST", body: data, headers: { Accept: HTML } });
    if (answer.status !== 401) return true;
    fail(wordsOf(await answer.text()));
  } catch {
    fail(words.offline);
  }
  return false;
}

function progress() {
  const seen = [[performance.now(), 0]];
  let spoken = 0;
  return ({ loaded, total: all }) => {
    const now = performance.now();
    seen.push([now, loaded]);
    while (seen.length > 2 && now - seen[1][0] > SPEED_OVER_MS) seen.shift();
    const [since, before] = seen[0];
    const speed = ((loaded - before) / Math.max(1, now - since)) * 1000;
    const share = all ? loaded / all : 0;
    part("progress").value = share;
    const values = {
      percent: percent(share), done: size(loaded), size: size(all),
      speed: size(speed), time: duration((all - loaded) / Math.max(1, speed)),
    };
    part("progress_text").textContent = loaded < all
      ? `${fill(words.progress, values)} · ${fill(words.speed, values)}`
      : words.finishing;
    if (share - spoken >= SPOKEN_STEP) {
      spoken = share;
      part("spoken").textContent = fill(words.spoken, values);
    }
  };
}

function answered() {
  const { status, responseText } = request;
  if (status === 201) {
    request = null;
    show(responseText);
    return;
  }
  fail(wordsOf(responseText) || words.offline);
}

// The server's own words for what is wrong, in this page's language.
function wordsOf(html) {
  const page = new DOMParser().parseFromString(html, HTML);
  const lines = [...page.querySelectorAll("h1, .lead, .next, .note")];
  const said = lines.map((line) => line.textContent.trim()).filter(Boolean);
  return said.map((line) => (/[.!?]$/.test(line) ? line : `${line}.`)).join(" ");
}

function fail(text) {
  request = null;
  part("failed_text").textContent = text;
  stage("failed");
  part("failed_heading").focus();
}

begin();
