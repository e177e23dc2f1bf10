/* --- the chart: a cursor that names the site, zoom by dragging, a row by clicking --- */

(() => {
  const plot = find("plot");
  if (!plot || !cells.length) return;
  const lines = find("lines"), tip = find("tip"), whole = find("whole"), flags = find("flags"), places = find("places");
  const size = lines.viewBox.baseVal.width, initially = [...places.childNodes].map((each) => each.cloneNode(true));
  let from = 0, to = size, at = -1, pressed = null;
  const cursor = make("div", { className: "cursor", hidden: true }), chosen = make("div", { className: "chosen", hidden: true });
  plot.append(cursor, chosen);
  plot.setAttribute("role", "slider");
  plot.tabIndex = 0;
  const told = plot.getAttribute("aria-label");
  plot.setAttribute("aria-label", "Error over depth. Arrows go from site to site, plus and minus zoom, Enter shows the row");
  plot.setAttribute("aria-valuemin", "0");
  plot.setAttribute("aria-valuetext", told);
  plot.setAttribute("aria-valuenow", "0");
  const current = () => cells[state.cell];
  const limit = () => plot.setAttribute("aria-valuemax", String(Math.max(0, current().count - 1)));
  const share = (row) => (row + 0.5 - from) / (to - from);

  const zoom = (a, b) => {
    const least = Math.min(6, size);
    if (b - a < least) { const middle = (a + b) / 2; [a, b] = [middle - least / 2, middle + least / 2]; }
    if (a < 0) [a, b] = [0, Math.min(size, b - a)];
    if (b > size) [a, b] = [Math.max(0, a - (b - size)), size];
    [from, to] = [a, b];
    lines.setAttribute("viewBox", `${from - 0.5} 0 ${to - from} 1000`);
    whole.hidden = from === 0 && to === size;
    for (const flag of flags.children) {
      const place = share(Number(flag.dataset.row));
      flag.setAttribute("x", `${100 * place}%`);
      flag.style.display = place < 0 || place > 1 ? "none" : "";
    }
    label();
    if (at >= 0) point(at, false);
  };
  // Names of the modules in sight: of the outermost ones first, deeper ones where these are too few.
  const label = () => {
    if (whole.hidden) { places.replaceChildren(...initially.map((each) => each.cloneNode(true))); return; }
    const c = current(), first = Math.max(0, Math.ceil(from)), last = Math.min(c.count, Math.floor(to));
    let groups = [];
    for (let depth = 1; depth < 8; depth++) {
      const found = [];
      for (let row = first; row < last; row++) {
        const name = c.called(row).split(".").slice(0, depth).join(".");
        if (!found.length || found[found.length - 1][1] !== name) found.push([row, name]);
      }
      groups = found;
      if (found.length >= 3) break;
    }
    const marks = [];
    let free = -1;
    const room = Math.max(0.12, 90 / plot.clientWidth);
    for (const [row, name] of groups) {
      const place = share(row - 0.5);
      if (place < free || place > 1 - room / 2) continue;
      const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
      text.setAttribute("x", `${100 * Math.max(0, place)}%`);
      text.setAttribute("y", "15");
      text.textContent = name.length > 22 ? `…${name.slice(-21)}` : name;
      marks.push(text);
      free = place + room * Math.max(1, name.length / 11);
    }
    places.replaceChildren(...marks);
  };
  const point = (row, follow = true) => {
    const c = current();
    at = Math.max(0, Math.min(c.count - 1, row));
    if (follow && (at < from || at >= to)) { const half = (to - from) / 2; zoom(at - half, at + half); return; }
    const place = share(at);
    cursor.hidden = place < 0 || place > 1;
    cursor.style.left = `${100 * place}%`;
    const values = [["total", "allowed_total"], ["intrinsic", "allowed_intrinsic"]]
      .filter(([key]) => c.figures[key](at) !== null)
      .map(([key, allowed]) => `${key} ${figure(c.figures[key](at))}, allowed ${figure(c.figures[allowed](at))}`);
    const status = c.status(at);
    plot.setAttribute("aria-valuenow", String(at));
    plot.setAttribute("aria-valuetext", `${c.called(at)}, ${c.op(at)}, ${STATUS_WORDS[status]}; ${values.join("; ")}`);
    tip.replaceChildren(make("b", { textContent: c.called(at) }), ` ${c.op(at)} `, mark(status),
      ...values.flatMap((each) => [make("br"), each]));
    if (cells.length > 1) tip.append(make("br"), make("span", { className: "faint", textContent: c.name }));
    tip.hidden = cursor.hidden;
    const box = plot.getBoundingClientRect(), outer = plot.closest("figure").getBoundingClientRect();
    const x = box.left - outer.left + place * box.width, width = tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(outer.width - width, x > outer.width / 2 ? x - width - 12 : x + 12))}px`;
    tip.style.top = `${box.top - outer.top + 12}px`;
  };
  const row = (event) => {
    const box = plot.getBoundingClientRect();
    return from + Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * (to - from);
  };
  const leave = () => { cursor.hidden = tip.hidden = true; at = -1; };
  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pressed = { x: event.clientX, row: row(event) };
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", (event) => {
    if (pressed && Math.abs(event.clientX - pressed.x) > 6) {
      const [a, b] = [pressed.row, row(event)].sort((one, two) => one - two);
      chosen.hidden = false;
      chosen.style.left = `${(100 * (a - from)) / (to - from)}%`;
      chosen.style.width = `${(100 * (b - a)) / (to - from)}%`;
      tip.hidden = cursor.hidden = true;
    } else point(Math.floor(row(event)), false);
  });
  plot.addEventListener("pointerup", (event) => {
    if (!pressed) return;
    const start = pressed;
    pressed = null;
    chosen.hidden = true;
    if (Math.abs(event.clientX - start.x) > 6) {
      const [a, b] = [start.row, row(event)].sort((one, two) => one - two);
      leave();
      zoom(Math.floor(a), Math.ceil(b));
    } else table?.reveal(current(), Math.max(0, Math.min(current().count - 1, Math.floor(row(event)))));
  });
  plot.addEventListener("pointercancel", () => { pressed = null; chosen.hidden = true; });
  plot.addEventListener("pointerleave", () => { if (!pressed && document.activeElement !== plot) leave(); });
  plot.addEventListener("dblclick", () => zoom(0, size));
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.round((to - from) / 10));
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: page, PageDown: -page };
    if (event.key in steps) point(at < 0 ? Math.ceil(from) : at + steps[event.key]);
    else if (event.key === "Home") point(0);
    else if (event.key === "End") point(current().count - 1);
    else if (event.key === "+" || event.key === "-") {
      const middle = at < 0 ? (from + to) / 2 : at + 0.5, half = ((to - from) / 2) * (event.key === "+" ? 0.5 : 2);
      zoom(middle - half, middle + half);
    } else if (event.key === "Escape") { leave(); zoom(0, size); }
    else if (event.key === "Enter" && at >= 0) table?.reveal(current(), at);
    else return;
    event.preventDefault();
  });
  whole.addEventListener("click", () => { zoom(0, size); plot.focus(); });
  const lanes = find("lanes");
  lanes.addEventListener("click", (event) => {
    const lane = event.target.closest("[data-cell]");
    if (lane) choose(Number(lane.dataset.cell));
  });
  const refocus = () => {
    for (const each of lanes.querySelectorAll("[data-cell]")) each.setAttribute("aria-pressed", String(Number(each.dataset.cell) === state.cell));
    for (const each of lines.querySelectorAll(".series")) {
      const own = Number(each.dataset.cell) === state.cell;
      each.classList.toggle("focus", own);
      if (own) lines.append(each);
    }
    leave();
    limit();
    if (!whole.hidden) label();
  };
  listeners.push(refocus);
  refocus();
})();
