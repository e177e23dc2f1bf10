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
