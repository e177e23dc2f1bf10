/* --- the table: only the rows in sight are in the page --- */

const ROW = 30, SPARE = 12, PRINTED = 400;
const table = (() => {
  const grid = find("grid");
  if (!grid || !cells.length) return null;
  const body = find("table").tBodies[0], head = find("table").tHead;
  const wanted = find("wanted"), op = find("op"), cell = find("cell"), shown = find("shown"), every = find("every");
  const COLUMNS = [
    ["cell", "cell", (c) => c.name, "site"],
    ["index", "#", (c, r) => c.index(r), "number"],
    ["status", "status", (c, r) => c.status(r), "status"],
    ["baseline", "baseline", (c, r) => c.baseline(r), "site"],
    ["candidate", "candidate", (c, r) => c.candidate(r), "site"],
    ["op", "operator", (c, r) => c.op(r), ""],
    ...[["mse", "MSE"], ["r", "r"], ["pearson", "1 - r"], ["total", "rel. error"], ["allowed_total", "allowed"],
      ["intrinsic", "intrinsic"], ["allowed_intrinsic", "intrinsic allowed", "more"], ["intrinsic_mse", "intrinsic MSE", "more"],
      ["max_abs", "max abs", "more"], ["times", "× baseline's rounding", "more"], ["ulp_max", "ULP", "more"]]
      .filter(([key]) => cells.some((c) => (key === "r" ? "pearson" : key) in c.has))
      .map(([key, label, more]) => [key, label, (c, r) => number(c.figures[key](r)), "number", more]),
    ["shape", "shape", (c, r) => c.shape(r), "number", "more"],
  ];
  const renamed = cells.some((c) => { for (let r = 0; r < c.count; r++) if (c.candidate(r) !== c.baseline(r)) return true; return false; });
  let visible = [], order = [], sort = { key: "", down: false }, active = 0, from = -1, to = -1;
  const picked = new Set(STATUS_WORDS.keys());

  const boxes = find("statuses");
  for (const [status, word] of STATUS_WORDS.entries()) {
    const box = make("input", { type: "checkbox", checked: true, value: String(status) });
    box.addEventListener("change", () => { box.checked ? picked.add(status) : picked.delete(status); refresh(); });
    boxes.append(make("label", {}, box, mark(status), make("span", { className: "number tally" })));
  }
  const operators = new Set();
  for (const c of cells) for (let r = 0; r < c.count; r++) operators.add(c.op(r));
  for (const name of [...operators].sort()) op.append(make("option", { value: name, textContent: name }));
  for (const c of cells) if (c.count) cell.append(make("option", { value: String(c.place), textContent: c.name }));
  if (cell.length > 1) cell.append(make("option", { value: "all", textContent: "every cell" }));

  const heading = () => {
    visible = COLUMNS.filter(([key, , , , more]) =>
      (key !== "cell" || state.all) && (key !== "candidate" || renamed) && (!more || every.checked));
    head.replaceChildren(make("tr", {}, ...visible.map(([key, label, , kind]) => {
      const button = make("button", { type: "button", textContent: label });
      button.dataset.key = key;
      button.addEventListener("click", () => {
        const falling = kind === "number" && key !== "index";
        if (sort.key !== key) sort = { key, down: falling };
        else if (sort.down === falling) sort = { key, down: !falling };
        else sort = { key: "", down: false };
        refresh();
        head.querySelector(`[data-key="${key}"]`).focus();
      });
      const th = make("th", { scope: "col", className: kind === "number" ? "number" : "" }, button);
      if (sort.key === key) th.ariaSort = sort.down ? "descending" : "ascending";
      return th;
    })));
  };

  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") {
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return a - b;
    }
    return a < b ? -1 : a > b ? 1 : 0;
  };

  const refresh = () => {
    const text = wanted.value.trim().toLowerCase(), sought = state.all ? cells : [cells[state.cell]];
    const tally = STATUS_WORDS.map(() => 0);
    order = [];
    let all = 0;
    for (const c of sought) {
      all += c.count;
      for (let r = 0; r < c.count; r++) {
        if (op.value && c.op(r) !== op.value) continue;
        if (text && !`${c.baseline(r) ?? ""}\n${c.candidate(r) ?? ""}`.toLowerCase().includes(text)) continue;
        tally[c.status(r)]++;
        if (picked.has(c.status(r))) order.push([c, r]);
      }
    }
    const column = COLUMNS.find(([key]) => key === sort.key);
    if (column) {
      const read = column[2], sign = sort.down ? -1 : 1;
      const keyed = order.map((each) => [read(...each), each]);
      // What was not measured comes last, whichever way.
      keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
      order = keyed.map((each) => each[1]);
    }
    for (const [status, label] of [...boxes.querySelectorAll("label")].entries()) {
      label.lastChild.textContent = ` ${tally[status].toLocaleString("en-US")}`;
      label.hidden = !tally[status] && picked.has(status);
    }
    shown.textContent = `${order.length.toLocaleString("en-US")} of ${all.toLocaleString("en-US")} rows`
      + (order.length ? "" : ": none fits the filters");
    find("table").setAttribute("aria-rowcount", String(order.length + 1));
    cell.value = state.all ? "all" : String(state.cell);
    active = 0;
    heading();
    grid.scrollTop = 0;
    draw(true);
  };

  const space = (rows) => {
    const td = make("td", { colSpan: visible.length });
    td.style.height = `${rows * ROW}px`;
    return make("tr", { className: "space", ariaHidden: "true" }, td);
  };
  const line = (place) => {
    const [c, r] = order[place];
    const tr = make("tr", { className: c.status(r) === 0 ? "wrong" : "", tabIndex: -1 });
    tr.setAttribute("aria-rowindex", String(place + 2));
    tr.dataset.place = String(place);
    for (const [key, , read, kind] of visible) {
      const td = make("td", { className: kind });
      const value = read(c, r);
      if (kind === "status") td.append(mark(value));
      else td.textContent = key === "index" ? String(value) : kind === "number" ? figure(value) : value ?? "-";
      if (kind === "site" && value) td.title = value;
      tr.append(td);
    }
    return tr;
  };
  const draw = (anew = false, every = 0) => {
    const first = every ? 0 : Math.max(0, Math.floor(grid.scrollTop / ROW) - SPARE);
    const last = every ? Math.min(order.length, every)
      // Before the first rows are there the grid has no height of its own.
      : Math.min(order.length, Math.ceil((grid.scrollTop + Math.max(grid.clientHeight, innerHeight)) / ROW) + SPARE);
    if (!anew && first === from && last === to) return;
    // A little scrolling stays inside the spare rows.
    if (!anew && first >= from && last <= to) return;
    const held = document.activeElement?.closest?.("tr[data-place]");
    const rows = [];
    for (let place = first; place < last; place++) rows.push(line(place));
    body.replaceChildren(space(first), ...rows, space(every ? 0 : order.length - last));
    [from, to] = [first, last];
    const reach = body.querySelector(`[data-place="${active}"]`) ?? rows[0];
    if (reach) reach.tabIndex = 0;
    if (held && reach && Number(reach.dataset.place) === active) reach.focus({ preventScroll: true });
  };

  const go = (place, focus = true, first = false) => {
    active = Math.max(0, Math.min(order.length - 1, place));
    const top = head.offsetHeight, above = active * ROW, height = grid.clientHeight - top;
    if (first || above < grid.scrollTop) grid.scrollTop = above;
    else if (above + ROW > grid.scrollTop + height) grid.scrollTop = above + ROW - height;
    draw(true);
    if (focus) body.querySelector(`[data-place="${active}"]`)?.focus({ preventScroll: true });
  };
  let asked = false;
  grid.addEventListener("scroll", () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  }, { passive: true });
  grid.addEventListener("keydown", (event) => {
    if (event.target.closest("thead")) return;
    const page = Math.max(1, Math.floor(grid.clientHeight / ROW) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps && order.length) {
      const inside = event.target.closest("tr[data-place]");
      const target = inside ? Math.max(0, Math.min(order.length - 1, active + steps[event.key])) : active;
      go(target);
      event.preventDefault();
    } else if ((event.key === "Enter" || event.key === " ") && event.target.closest("tr[data-place]")) {
      details.show(...order[active], event.target);
      event.preventDefault();
    }
  });
  body.addEventListener("click", (event) => {
    const tr = event.target.closest("tr[data-place]");
    if (!tr) return;
    active = Number(tr.dataset.place);
    details.show(...order[active], tr);
  });
  let typed = 0;
  wanted.addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(refresh, 80); });
  op.addEventListener("change", refresh);
  every.addEventListener("change", refresh);
  cell.addEventListener("change", () =>
    cell.value === "all" ? choose(state.cell, true) : choose(Number(cell.value)));
  find("filters").addEventListener("submit", (event) => event.preventDefault());
  listeners.push(refresh);
  find("filters").hidden = grid.hidden = false;
  addEventListener("resize", () => draw(true));
  addEventListener("beforeprint", () => draw(true, PRINTED));
  addEventListener("afterprint", () => draw(true));

  /** Bring a site's row into sight, filters or not, and show its figures. */
  const reveal = (c, r) => {
    const place = () => order.findIndex(([oc, or]) => oc === c && or === r);
    if (place() < 0) {
      wanted.value = op.value = "";
      for (const box of boxes.querySelectorAll("input")) { box.checked = true; picked.add(Number(box.value)); }
      if (!state.all && state.cell !== c.place) choose(c.place);
      else refresh();
    }
    find("sites").scrollIntoView({ block: "start" });
    go(place(), true, true);
    details.show(c, r, body.querySelector(`[data-place="${active}"]`));
  };
  return { refresh, reveal };
})();
