/* --- the rest --- */

for (const button of document.querySelectorAll("[data-reveal]")) {
  button.hidden = button.disabled = false;
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
  for (const each of document.querySelectorAll("#culprits details, details.block, details.fold")) each.open = true;
});
/** A card that is led to opens. */
const arrive = () => {
  const card = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (card instanceof HTMLDetailsElement) card.open = true;
};
addEventListener("hashchange", arrive);
arrive();
table?.refresh();
document.documentElement.dataset.ready = "yes";
