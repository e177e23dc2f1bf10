/* --- the tree: a block's sites are made when it is opened --- */

(() => {
  const home = find("tree");
  if (!home || !cells.length) return;
  const leaf = (c, row) => {
    const side = (name) => make("span", name === null ? { className: "none", textContent: "no partner" } : { className: "site", textContent: name });
    const status = c.status(row);
    const node = make("button", { type: "button", className: "leaf" }, mark(status), side(c.baseline(row)), side(c.candidate(row)),
      make("span", { className: "op faint", textContent: c.op(row) }));
    node.addEventListener("click", () => details.show(c, row, node));
    return node;
  };
  const sites = (inside) => inside.reduce((sum, each) => sum + (Array.isArray(each) ? sites(each[1]) : 1), 0);
  const branch = (c, column, [label, inside, worst, wrong], depth) => {
    const count = sites(inside), bad = wrong[column];
    const summary = make("summary", {}, mark(worst[column]), make("span", { className: "site", textContent: label }),
      make("span", { className: "sum number", textContent: `${count.toLocaleString("en-US")} ${count === 1 ? "site" : "sites"}${bad ? `, ${bad} ${data.wrong}` : ""}` }));
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
    const culprit = home.querySelector(`.leaf:has(.${STATUS_TONES[0]})`);
    home.scrollTop = culprit && culprit.offsetTop > home.clientHeight - 60 ? culprit.offsetTop - home.clientHeight / 2 : 0;
  };
  listeners.push(draw);
  draw();
})();
