// Filter and sort the worklist; without this the page shows all masks, the worst first. Nothing is fetched.
"use strict";
(() => {
  const form = document.getElementById("filters");
  const body = document.querySelector("table.cases tbody");
  const rows = [...body.rows];
  const field = (id) => document.getElementById(id);
  const collator = new Intl.Collator(undefined, { numeric: true });
  // By these the largest come first; the others from the worst (QI, Dice) or from A on.
  const descending = new Set(["minutes", "ml"]);

  function filter() {
    const words = field("find").value.trim().toLowerCase();
    const decisions = new Set([...form.querySelectorAll("input[name=decision]:checked")].map((box) => box.value));
    const structure = field("structure").value;
    const most = field("most").value === "" ? Infinity : Number(field("most").value);
    for (const row of rows) {
      row.hidden = !(decisions.has(row.dataset.decision) && (!structure || row.dataset.structure === structure)
        && Number(row.dataset.minutes) <= most && row.textContent.toLowerCase().includes(words));
    }
    const shown = rows.filter((row) => !row.hidden);
    const minutes = Math.round(shown.reduce((sum, row) => sum + Number(row.dataset.minutes), 0));
    const hours = minutes < 60 ? "" : `${Math.floor(minutes / 60)} h `;
    field("shown").value = `${shown.length} of ${rows.length} masks, about ${hours}${minutes % 60} min`;
  }

  function sort(head, reverse) {
    const key = head.dataset.sort;
    const sign = (descending.has(key) ? -1 : 1) * (reverse ? -1 : 1);
    const compare = (a, b) => {
      const [x, y] = [a.dataset[key], b.dataset[key]];
      // what is not known comes last, whatever the direction
      if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1) || a.dataset.place - b.dataset.place;
      return sign * (key === "name" ? collator.compare(x, y) : x - y) || a.dataset.place - b.dataset.place;
    };
    body.append(...rows.sort(compare));
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    field("sort").value = key;
  }

  // In a narrow window rows are cards and have no heads.
  const heads = [...document.querySelectorAll("th[data-sort]")].sort((a) => (a.dataset.sort === "place" ? -1 : 0));
  for (const head of heads) field("sort").add(new Option(head.textContent, head.dataset.sort));
  field("sort").addEventListener("change", () => sort(heads.find((head) => head.dataset.sort === field("sort").value), false));

  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    let reverse = true;
    button.addEventListener("click", () => {
      reverse = head.hasAttribute("aria-sort") && !reverse;
      sort(head, reverse);
    });
  }
  form.addEventListener("input", filter);
  field("all").addEventListener("click", () => { form.reset(); filter(); sort(heads[0], false); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
})();
