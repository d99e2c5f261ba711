"use strict";
const form = document.getElementById("filters");
const button = document.getElementById("masks");
const count = document.getElementById("count");
const figures = [...document.querySelectorAll("#samples figure")];

function filter() {
  const wanted = Object.fromEntries(new FormData(form));
  let shown = 0;
  for (const figure of figures) {
    const { source, split, labels } = figure.dataset;
    const fits = (!wanted.source || source === wanted.source) && (!wanted.split || split === wanted.split)
      && (!wanted.label || labels.split(" ").includes(wanted.label));
    figure.hidden = !fits;
    shown += fits;
  }
  count.textContent = `${shown} of ${figures.length} shown`;
}

function toggle() {
  button.setAttribute("aria-pressed", String(document.body.classList.toggle("masks")));
}

form.addEventListener("change", filter);
form.addEventListener("submit", (event) => event.preventDefault());
button.addEventListener("click", toggle);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, button")) return;
  if (event.key === "o" || event.key === " ") {
    event.preventDefault();
    toggle();
  }
});
filter();
