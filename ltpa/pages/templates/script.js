"use strict";
// Everything on the pages can be read without this script; it sorts, filters, slides and prints.

for (const button of document.querySelectorAll("button.print")) {
  button.hidden = false;
  button.addEventListener("click", () => window.print());
}

function sortBy(table, column, descending) {
  const body = table.tBodies[0];
  const value = (row) => {
    const cell = row.cells[column];
    return cell.classList.contains("num") ? (cell.dataset.value === undefined ? null : Number(cell.dataset.value)) : cell.textContent;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing stands last either way
    const order = typeof a === "number" ? a - b : a.localeCompare(b);
    return descending ? -order : order;
  };
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
}

const boards = document.querySelector("form[data-boards]");
if (boards) {
  boards.hidden = false;
  const show = () => {
    const wanted = boards.elements.text.value.toLowerCase();
    let count = 0;
    for (const board of document.querySelectorAll(".board")) {
      board.hidden = boards.elements.board.value !== "" && board.id !== boards.elements.board.value;
      for (const row of board.querySelectorAll("tbody tr")) {
        row.hidden = !`${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase().includes(wanted);
        count += !row.hidden && !board.hidden;
      }
    }
    boards.querySelector("output").textContent = `${count} rows`;
  };
  boards.addEventListener("input", show);
  boards.addEventListener("submit", (event) => event.preventDefault());
  show();
}

const looks = document.querySelector("form.looks-form");
if (looks) {
  const slider = looks.elements.level;
  const levels = JSON.parse(slider.dataset.levels);
  looks.querySelector(".slider").hidden = levels.length < 2;
  const show = () => {
    const wanted = levels[slider.value];
    looks.querySelector("output").textContent = wanted;
    slider.setAttribute("aria-valuetext", wanted);
    for (const look of document.querySelectorAll(".look")) {
      const maps = [...look.querySelectorAll(".map")];
      for (const map of maps) map.hidden = map.dataset.level !== wanted;
      const none = look.querySelector(".none");
      if (none) none.hidden = maps.some((map) => !map.hidden);
    }
  };
  looks.addEventListener("input", show);
  looks.addEventListener("submit", (event) => event.preventDefault());
  show();
}
