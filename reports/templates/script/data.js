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
// Three significant digits, near 1 as many more as tell it from 1, as reports/wording.py writes a figure.
const figure = (given) => {
  const value = number(given);
  if (value === null || value === undefined) return "-";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string") return value;
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (value === 0) return "0";
  if (Number.isInteger(value) && Math.abs(value) >= 1000 && Math.abs(value) < 1e16) return value.toLocaleString("en-US");
  const distance = 1 - Math.abs(value);
  if (distance > 0 && distance < 0.1)
    return String(Number(value.toFixed(Math.min(15, 2 - Math.floor(Math.log10(distance))))));
  const [digits, power] = value.toExponential(2).split("e");
  const exponent = Number(power);
  if (exponent >= -4 && exponent < 3) return String(Number(value.toPrecision(3)));
  return `${String(Number(digits))}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
};

const [STATUS_WORDS, STATUS_SIGNS, STATUS_TONES] = [0, 1, 2].map((k) => data.statuses.map((each) => each[k]));
const OK = data.statuses.length - 1;
const cells = data.cells.map((cell, place) => {
  const list = data.lists[cell.list];
  const baseline = reader(list.baseline), candidate = reader(list.candidate);
  const figures = {};
  for (const [, group] of data.groups) for (const [key] of group) figures[key] = reader(cell.figures[key]);
  for (const [r, left] of [["r", "pearson"], ["intrinsic_r", "intrinsic_pearson"]]) {
    const known = figures[r], rest = figures[left];
    figures[r] = (row) => known(row) ?? (typeof rest(row) === "number" ? 1 - rest(row) : rest(row));
  }
  return {
    place, name: cell.name, list: cell.list, count: list.count, has: cell.figures, figures,
    index: reader(list.index), baseline, op: reader(list.op), shape: reader(list.shape), status: reader(cell.status),
    candidate: (row) => (candidate(row) === 0 ? baseline(row) : candidate(row)),
    called: (row) => baseline(row) ?? (candidate(row) || "unnamed"),
  };
});
const mark = (status) =>
  make("span", { className: `mark ${STATUS_TONES[status]}` },
    make("span", { ariaHidden: "true", textContent: STATUS_SIGNS[status] }),
    make("span", { className: "word", textContent: ` ${STATUS_WORDS[status]}` }));

const state = { cell: data.first, all: false };
const listeners = [];
const choose = (place, all = false) => {
  state.cell = place;
  state.all = all;
  for (const each of listeners) each();
};
