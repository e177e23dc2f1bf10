"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const make = (tag, fields = {}, ...inside) => {
    const node = Object.assign(document.createElement(tag), fields);
    node.append(...inside);
    return node;
  };

  /* --- numbers and columns, as reports/table.py writes them --- */

  const SPELT = { nan: NaN, inf: Infinity, "-inf": -Infinity };
  const number = (value) => (typeof value === "string" && value in SPELT ? SPELT[value] : value);
  const reader = (column) => {
    if (column === undefined) return () => null;
    if (Array.isArray(column)) return (row) => column[row];
    if ("words" in column) return (row) => column.words[column.at[row]];
    return () => column.all;
  };
  // Three significant digits, as reports/sentences.py writes a figure.
  const figure = (given) => {
    const value = number(given);
    if (value === null || value === undefined) return "-";
    if (typeof value === "boolean") return value ? "yes" : "no";
    if (typeof value === "string") return value;
    if (Number.isNaN(value)) return "nan";
    if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
    if (value === 0) return "0";
    if (Number.isInteger(value) && Math.abs(value) >= 1000 && Math.abs(value) < 1e16) return value.toLocaleString("en-US");
    const [digits, power] = value.toExponential(2).split("e");
    const exponent = Number(power);
    if (exponent >= -4 && exponent < 3) return String(Number(value.toPrecision(3)));
    return `${String(Number(digits))}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  };

  const [STATUS_WORDS, STATUS_SIGNS] = [data.statuses.map((each) => each[0]), data.statuses.map((each) => each[1])];
  const OK = data.statuses.length - 1;
  const cells = data.cells.map((cell, place) => {
    const list = data.lists[cell.list];
    const baseline = reader(list.baseline), candidate = reader(list.candidate);
    const figures = {};
    for (const [, group] of data.groups) for (const [key] of group) figures[key] = reader(cell.figures[key]);
    return {
      place, name: cell.name, list: cell.list, count: list.count, has: cell.figures, figures,
      index: reader(list.index), baseline, op: reader(list.op), shape: reader(list.shape), status: reader(cell.status),
      candidate: (row) => (candidate(row) === 0 ? baseline(row) : candidate(row)),
      called: (row) => baseline(row) ?? (candidate(row) || "unnamed"),
    };
  });
  const mark = (status) =>
    make("span", { className: `mark ${STATUS_WORDS[status]}` },
      make("span", { ariaHidden: "true", textContent: STATUS_SIGNS[status] }), ` ${STATUS_WORDS[status]}`);

  const state = { cell: data.first, all: false };
  const listeners = [];
  const choose = (place, all = false) => {
    state.cell = place;
    state.all = all;
    for (const each of listeners) each();
  };

  /* --- the table: only the rows in sight are in the page --- */

  const ROW = 30, SPARE = 12, PRINTED = 400;
  const table = (() => {
    const grid = find("grid");
    if (!grid || !cells.length) return null;
    const body = find("table").tBodies[0], head = find("table").tHead;
    const wanted = find("wanted"), op = find("op"), cell = find("cell"), shown = find("shown");
    const COLUMNS = [
      ["cell", "cell", (c) => c.name, "site"],
      ["index", "#", (c, r) => c.index(r), "number"],
      ["status", "status", (c, r) => c.status(r), "status"],
      ["baseline", "baseline", (c, r) => c.baseline(r), "site"],
      ["candidate", "candidate", (c, r) => c.candidate(r), "site"],
      ["op", "operator", (c, r) => c.op(r), ""],
      ...[["total", "total"], ["allowed_total", "allowed"], ["intrinsic", "intrinsic"], ["allowed_intrinsic", "allowed"],
        ["pearson", "1 - Pearson"], ["max_abs", "max abs"], ["times", "× baseline's rounding"], ["ulp_max", "ULP"]]
        .filter(([key]) => cells.some((c) => key in c.has))
        .map(([key, label]) => [key, label, (c, r) => number(c.figures[key](r)), "number"]),
      ["shape", "shape", (c, r) => c.shape(r), "number"],
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
      visible = COLUMNS.filter(([key]) => (key !== "cell" || state.all) && (key !== "candidate" || renamed));
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
      const tr = make("tr", { className: STATUS_WORDS[c.status(r)], tabIndex: -1 });
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

  /* --- all figures of one site, a column a cell --- */

  const details = (() => {
    const dialog = find("details");
    let back = null;
    const close = () => { dialog.close(); if (back?.isConnected) back.focus(); };
    dialog?.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.preventDefault(); close(); } });
    const show = (own, row, from) => {
      back = from;
      for (const each of document.querySelectorAll(".looked-at")) each.classList.remove("looked-at");
      from?.classList.add("looked-at");
      const beside = cells.filter((c) => c.list === own.list);
      const title = make("h3", { id: "details-title" }, make("span", { className: "site", textContent: own.called(row) }));
      if (own.candidate(row) !== own.baseline(row)) title.append(` (candidate: ${own.candidate(row) ?? "has none"})`);
      const button = make("button", { type: "button", textContent: "Close" });
      button.addEventListener("click", close);
      const body = make("tbody");
      body.append(make("tr", {}, make("th", { scope: "row", textContent: "status" }), ...beside.map((c) => make("td", {}, mark(c.status(row))))));
      for (const [group, figures] of data.groups) {
        const lines = figures.filter(([key]) => beside.some((c) => ![null, "", undefined].includes(c.figures[key](row))));
        if (!lines.length) continue;
        body.append(make("tr", {}, make("th", { scope: "rowgroup", colSpan: beside.length + 1, textContent: group })));
        for (const [key, label] of lines)
          body.append(make("tr", {}, make("th", { scope: "row", textContent: label }),
            ...beside.map((c) => make("td", { textContent: figure(c.figures[key](row)) || "-" }))));
      }
      const scroll = make("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Figures by cell" },
        make("table", {}, make("thead", {}, make("tr", {}, make("td"), ...beside.map((c) => make("th", { scope: "col", textContent: c.name })))), body));
      dialog.replaceChildren(
        make("header", {}, make("div", {}, title, make("p", { className: "faint", textContent: `${own.op(row)}, ${own.shape(row)}, row ${own.index(row)}` })), button),
        scroll);
      if (!dialog.open) dialog.show();
      dialog.scrollTop = 0;
      button.focus({ preventScroll: true });
    };
    return { show };
  })();

  /* --- the tree: a block's sites are made when it is opened --- */

  (() => {
    const home = find("tree");
    if (!home || !cells.length) return;
    const leaf = (c, row) => {
      const side = (name) => make("span", name === null ? { className: "none", textContent: "no partner" } : { className: "site", textContent: name });
      const status = c.status(row);
      const sign = make("span", { className: `mark ${STATUS_WORDS[status]}` },
        make("span", { ariaHidden: "true", textContent: STATUS_SIGNS[status] }), make("span", { className: "word", textContent: ` ${STATUS_WORDS[status]}` }));
      const node = make("button", { type: "button", className: "leaf" }, sign, side(c.baseline(row)), side(c.candidate(row)),
        make("span", { className: "op faint", textContent: c.op(row) }));
      node.addEventListener("click", () => details.show(c, row, node));
      return node;
    };
    const sites = (inside) => inside.reduce((sum, each) => sum + (Array.isArray(each) ? sites(each[1]) : 1), 0);
    const branch = (c, column, [label, inside, worst, wrong], depth) => {
      const count = sites(inside), bad = wrong[column];
      const summary = make("summary", {}, mark(worst[column]), make("span", { className: "site", textContent: label }),
        make("span", { className: "sum number", textContent: `${count.toLocaleString("en-US")} ${count === 1 ? "site" : "sites"}${bad ? `, ${bad} wrong` : ""}` }));
      const node = make("details", {}, summary);
      const fill = () => {
        if (node.childElementCount === 1) node.append(make("div", { className: "in" }, ...children(c, column, inside, depth + 1)));
      };
      node.addEventListener("toggle", () => { if (node.open) fill(); });
      if (bad && worst[column] === 0 && depth < 6 && opened < 40) { opened++; fill(); node.open = true; }
      return node;
    };
    const children = (c, column, inside, depth) =>
      inside.map((each) => (Array.isArray(each) ? branch(c, column, each, depth) : leaf(c, each)));
    let opened = 0, drawn = -1;
    const draw = () => {
      if (drawn === state.cell) return;
      drawn = state.cell;
      opened = 0;
      const c = cells[state.cell];
      const column = cells.filter((each) => each.list === c.list).indexOf(c);
      const tree = data.trees[c.list];
      home.replaceChildren(
        make("div", { className: "tree-head" }, make("span", { textContent: "status" }), make("span", { textContent: "baseline" }),
          make("span", { textContent: "candidate" }), make("span", { textContent: "operator" })),
        ...children(c, column, tree[1], 0));
      const culprit = home.querySelector(".leaf:has(.culprit)");
      home.scrollTop = culprit ? culprit.offsetTop - home.clientHeight / 2 : 0;
    };
    listeners.push(draw);
    draw();
  })();

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

  /* --- the rest --- */

  for (const button of document.querySelectorAll("[data-reveal]")) {
    button.hidden = false;
    button.addEventListener("click", () => table?.reveal(cells[data.first], Number(button.dataset.reveal)));
  }
  const copy = find("copy");
  if (copy && navigator.clipboard && isSecureContext) {
    copy.hidden = false;
    copy.addEventListener("click", () =>
      navigator.clipboard.writeText(find("command-line").textContent).then(
        () => { copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1500); },
        () => { copy.textContent = "Not allowed here"; }));
  }
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("#culprits > details, details.block")) each.open = true;
  });
  table?.refresh();
  document.documentElement.dataset.ready = "yes";
})();
