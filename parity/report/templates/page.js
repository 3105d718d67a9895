"use strict";
{
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const one = (id) => document.getElementById(id);
  let sources;
  const cells = all("article");

  // Pictures are decoded when their cell is opened.
  const fill = (cell) => {
    sources ??= JSON.parse(one("sources").textContent);
    for (const image of all("img[data-picture]", cell)) {
      image.src = sources[image.dataset.picture];
      image.removeAttribute("data-picture");
    }
  };
  for (const cell of cells) {
    const details = cell.querySelector("details");
    details.addEventListener("toggle", () => details.open && fill(cell));
    if (details.open) fill(cell);
  }

  for (const range of all("input[type=range]")) {
    const slider = range.previousElementSibling;
    const move = (at) => { range.value = at; slider.style.setProperty("--at", `${at}%`); };
    range.addEventListener("input", () => move(range.value));
    const drag = (event) => {
      if (event.pointerType === "mouse" && event.buttons !== 1) return;
      const box = slider.getBoundingClientRect();
      move(Math.round(Math.min(100, Math.max(0, 100 * (event.clientX - box.left) / box.width))));
    };
    slider.addEventListener("pointerdown", drag);
    slider.addEventListener("pointermove", drag);
    slider.addEventListener("dragstart", (event) => event.preventDefault());
  }

  const filter = () => {
    const words = one("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdicts = new Set(all("input[name=verdict]:checked").map((box) => box.value));
    const kind = one("kind").value, machine = one("machine")?.value ?? "", changed = one("changed-only")?.checked;
    let shown = 0;
    for (const group of all(".group")) {
      let any = false;
      for (const cell of all("article", group)) {
        const wanted = verdicts.has(cell.dataset.verdict) && (!kind || group.dataset.group === kind)
          && (!machine || cell.dataset.machine === machine) && (!changed || cell.dataset.changed !== "0")
          && words.every((word) => cell.dataset.search.includes(word));
        cell.hidden = !wanted;
        any ||= wanted;
        shown += wanted;
      }
      group.hidden = !any;
    }
    one("shown").textContent = `${shown} of ${cells.length} cells`;
  };
  const form = document.querySelector(".controls");
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  one("toggle").addEventListener("click", () => {
    const visible = cells.filter((cell) => !cell.hidden).map((cell) => cell.querySelector("details"));
    const open = visible.some((details) => !details.open);
    for (const details of visible) details.open = open;
    one("toggle").textContent = open ? "close all shown" : "open all shown";
  });
  filter();

  const reveal = () => {
    const cell = location.hash && document.getElementById(location.hash.slice(1));
    if (!cell || !cell.matches("article")) return;
    cell.hidden = false;
    cell.closest(".group").hidden = false;
    cell.querySelector("details").open = true;
    cell.querySelector("summary").focus({ preventScroll: true });
    cell.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  const step = (by) => {
    const visible = cells.filter((cell) => !cell.hidden);
    const now = visible.findIndex((cell) => cell.contains(document.activeElement));
    const next = visible[now < 0 ? 0 : Math.min(visible.length - 1, Math.max(0, now + by))];
    next?.querySelector("summary").focus();
  };
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=search], select");
    if (event.key === "Escape" && event.target === one("search")) { one("search").value = ""; filter(); event.target.blur(); }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); one("search").focus(); }
    if (event.key === "j") step(1);
    if (event.key === "k") step(-1);
  });

  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.previousElementSibling;
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
      } catch { // a page opened as a file may not write: select the text instead
        getSelection().selectAllChildren(code);
      }
    });
  }
}
