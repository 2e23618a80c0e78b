
// Each card has a choice of whom its segment is compared with: one table is shown at a time, at first that of all others.
for (const details of document.querySelectorAll("details.against")) {
  const tables = [details.previousElementSibling, ...details.querySelectorAll(":scope > div")];
  const label = document.createElement("label");
  const select = document.createElement("select");
  label.className = "versus";
  label.append("Compared with", select);
  tables.forEach((table, number) => {
    select.add(new Option(number ? table.querySelector("b").textContent : "all others"));
    table.classList.toggle("against", number > 0);
    table.hidden = number > 0;
  });
  select.addEventListener("change", () => {
    tables.forEach((table, number) => { table.hidden = number !== select.selectedIndex; });
  });
  tables[0].before(label);
  details.replaceWith(...tables.slice(1));
}
