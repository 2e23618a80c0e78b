"use strict";
// The page can be read without this: it sorts tables, hides what a search does not match, and marks what can be scrolled.
document.documentElement.classList.add("js");

const valueOf = (row, column) => {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace(/[,%×]/g, ""));
  return Number.isNaN(number) ? text : number;
};

const compare = (a, b) => {
  const numbers = typeof a === "number" && typeof b === "number";
  if (numbers) return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? 1 : -1;
  return a.localeCompare(b);
};

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      // Numbers begin with the largest, texts with the first.
      const first = typeof valueOf(table.tBodies[0].rows[0], column) === "number" ? "descending" : "ascending";
      const other = first === "descending" ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => sign * compare(valueOf(a, column), valueOf(b, column)));
      table.tBodies[0].append(...rows);
    });
  });
}

// A table that goes on to the right shows that it does.
for (const box of document.querySelectorAll(".scroll")) {
  const update = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  box.addEventListener("scroll", update, { passive: true });
  new ResizeObserver(update).observe(box);
}

// What a card compares its segment with is not what it is about.
const searchable = (one) => {
  const copy = one.cloneNode(true);
  for (const part of copy.querySelectorAll(".against, .versus")) part.remove();
  return copy.textContent.toLowerCase();
};

for (const input of document.querySelectorAll("input[data-filters]")) {
  const said = document.getElementById(`${input.id}-said`);
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    const all = [...document.querySelectorAll(input.dataset.filters)];
    for (const one of all) one.hidden = !searchable(one).includes(wanted);
    const shown = all.filter((one) => !one.hidden).length;
    said.textContent = wanted ? `${shown} of ${all.length}` : "";
  });
}
