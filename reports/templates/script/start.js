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
