for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const button = head => head.querySelector("button");
  heads.forEach((head, column) => button(head).addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : button(head).dataset.first !== "down";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => (row.cells[column].firstChild?.textContent ?? "").replace(/^inf$/, "Infinity");
    const rows = [...body.rows].sort((a, b) => {
      if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");  // gaps stay at the end
      const order = isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
      return up ? order : -order;
    });
    body.append(...rows);
  }));
}
for (const figure of document.querySelectorAll(".picture")) {
  const stage = figure.querySelector(".compare"), slider = figure.querySelector("input");
  const selects = [...figure.querySelectorAll("select")];
  const show = () => {
    for (const image of stage.querySelectorAll("img")) {
      image.classList.toggle("left", image.dataset.system === selects[0].value);
      image.classList.toggle("right", image.dataset.system === selects[1].value);
    }
  };
  const split = percent => { slider.value = percent; stage.style.setProperty("--split", percent + "%"); };
  const follow = event => {
    const box = stage.getBoundingClientRect();
    split(Math.max(0, Math.min(100, 100 * (event.clientX - box.left) / box.width)));
  };
  selects.forEach(select => select.addEventListener("change", show));
  slider.addEventListener("input", () => split(slider.value));
  stage.addEventListener("pointerdown", event => { stage.setPointerCapture(event.pointerId); follow(event); });
  stage.addEventListener("pointermove", event => { if (event.buttons) follow(event); });
}
