"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const served = location.protocol === "http:";
const verdicts = new Map(Object.entries(data.verdicts));
const $ = (id) => document.getElementById(id);
const list = $("list");
const form = $("filters");
let shown = [];
let place = 0;
let saving = Promise.resolve();
let pending = 0; // saves that wait for their turn

function choices(name, values) {
  const select = form.elements[name];
  for (const value of [...new Set(values)].sort()) {
    if (value) select.append(new Option(value, value));
  }
}

function review() {
  return JSON.stringify({ version: data.version, model: data.model, frames: Object.fromEntries(verdicts) }, null, 1) + "\n";
}

function filter(keep) {
  const wanted = Object.fromEntries(new FormData(form));
  shown = data.frames.filter((frame) => (!wanted.flag || frame.flags.includes(wanted.flag))
    && (!wanted.camera || frame.camera === wanted.camera)
    && (!wanted.verdict || (verdicts.get(frame.name) ?? "none") === wanted.verdict));
  list.replaceChildren(...shown.map((frame, number) => {
    const button = document.createElement("button");
    const name = document.createElement("b");
    const flags = document.createElement("small");
    name.textContent = frame.name;
    flags.textContent = frame.flags.join(", ");
    button.type = "button";
    button.append(name, flags);
    button.addEventListener("click", () => show(number));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
  const again = keep ? shown.indexOf(keep) : -1;
  show(again >= 0 ? again : 0);
}

function show(number) {
  place = Math.min(Math.max(number, 0), shown.length - 1);
  const frame = shown[place];
  $("viewer").hidden = !frame;
  if (frame) {
    $("image").src = frame.image;
    $("image").alt = frame.name;
    $("mask").src = frame.mask;
    $("name").textContent = frame.name;
    $("flags").textContent = frame.flags.join(", ");
    $("figures").replaceChildren(...frame.figures.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }));
  }
  mark();
}

function mark() {
  const frame = shown[place];
  list.querySelectorAll("button").forEach((button, number) => {
    button.dataset.is = verdicts.get(shown[number].name) ?? "";
    button.setAttribute("aria-current", String(number === place));
    if (number === place) button.scrollIntoView({ block: "nearest" });
  });
  for (const button of document.querySelectorAll("[data-verdict]")) {
    const own = button.dataset.verdict;
    button.setAttribute("aria-pressed", String(Boolean(frame && own && verdicts.get(frame.name) === own)));
  }
  const judged = data.frames.filter((frame) => verdicts.has(frame.name)).length;
  say(`${shown.length} shown, ${judged} of ${data.frames.length} judged, ${data.total} frames in all`);
}

function say(text) {
  $("count").textContent = text;
}

function judge(verdict) {
  const frame = shown[place];
  if (!frame) return;
  if (verdict) verdicts.set(frame.name, verdict);
  else verdicts.delete(frame.name);
  if (served) save();
  if (verdict && place < shown.length - 1) show(place + 1);
  else mark();
}

function save() {
  const own = review();
  const count = verdicts.size;
  pending += 1;
  document.body.dataset.saved = "saving";
  // One at a time, so that the last verdict is the one that stays.
  saving = saving.then(async () => {
    pending -= 1;
    try {
      const answer = await fetch("review.json", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: own,
      });
      if (!answer.ok) throw new Error(await answer.text());
      if (!pending) document.body.dataset.saved = String(count);
    } catch (error) {
      say(`not saved: ${error.message}. Is hotrain review still running?`);
      document.body.dataset.saved = "failed";
    }
  });
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([review()], { type: "application/json" }));
  link.download = "review.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function toggle() {
  $("mask").hidden = !$("mask").hidden;
  $("overlay").setAttribute("aria-pressed", String(!$("mask").hidden));
}

const keys = {
  a: () => judge("accept"), r: () => judge("reject"), g: () => judge("again"), u: () => judge(""), o: toggle,
  ArrowRight: () => show(place + 1), ArrowLeft: () => show(place - 1), j: () => show(place + 1), k: () => show(place - 1),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});
for (const button of document.querySelectorAll("[data-verdict]")) {
  button.addEventListener("click", () => judge(button.dataset.verdict));
}
$("overlay").addEventListener("click", toggle);
$("save").textContent = served ? "Save" : "Download review.json";
$("save").addEventListener("click", served ? save : download);
form.addEventListener("change", () => filter(shown[place]));
form.addEventListener("submit", (event) => event.preventDefault());

async function start() {
  choices("flag", data.frames.flatMap((frame) => frame.flags));
  choices("camera", data.frames.map((frame) => frame.camera));
  if (served) {
    // Verdicts saved after the page was written, where it is loaded once more.
    const answer = await fetch("review.json").catch(() => null);
    if (answer?.ok) {
      verdicts.clear();
      for (const [name, verdict] of Object.entries((await answer.json()).frames)) verdicts.set(name, verdict);
    }
  }
  filter();
  document.body.dataset.ready = "yes";
}
start();
