"use strict";
// The page is complete without this: it only switches the theme, enlarges pictures and opens details for printing.
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

document.getElementById("theme").addEventListener("click", () => {
  const now = root.dataset.theme || (dark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
});

const zoom = document.getElementById("zoom");
document.addEventListener("click", (event) => {
  const picture = event.target.closest(".tile img");
  if (picture && zoom.showModal) {
    zoom.querySelector("img").src = picture.src;
    zoom.querySelector("img").alt = picture.alt;
    zoom.querySelector("p").textContent = picture.alt;
    zoom.showModal();
  } else if (event.target.closest("#zoom")) {
    zoom.close();
  }
});

let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach((element) => (element.open = true));
});
addEventListener("afterprint", () => opened.forEach((element) => (element.open = false)));
