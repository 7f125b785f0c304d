// Each slider of the page shows the pictures of one scale. Without this script all are there, side by side.
for (const slider of document.querySelectorAll(".slider")) {
  const range = slider.querySelector("input[type=range]");
  const all = slider.querySelector("input[type=checkbox]");
  const labels = JSON.parse(range.dataset.labels);
  const films = [...slider.querySelectorAll(".film")].map(film => [...film.querySelectorAll(".shot:not(.held)")]);
  const show = () => {
    const at = Number(range.value);
    for (const shots of films) shots.forEach((shot, index) => shot.toggleAttribute("data-on", index === at));
    slider.querySelector("output").textContent = labels[at];
    range.setAttribute("aria-valuetext", labels[at]);
  };
  range.addEventListener("input", show);
  all.addEventListener("change", () => slider.classList.toggle("live", !all.checked));
  slider.classList.add("live");
  show();
}
