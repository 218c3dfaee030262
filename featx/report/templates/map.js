// Shows the picture and the text of the point under the pointer. Without it the points have their text as tooltips.
"use strict";
(() => {
  const card = document.getElementById("card");
  const picture = card.querySelector("use");
  const text = card.querySelector("p");
  const texts = new Map();
  for (const title of document.querySelectorAll("[data-point] > title")) {
    texts.set(title.parentNode, title.textContent);
    title.remove(); // else the browser's own tooltip would cover the card
  }
  const show = (event) => {
    const point = event.target.closest("[data-point]");
    if (!point) {
      card.hidden = true;
      return;
    }
    const id = "s" + point.dataset.point;
    const known = document.getElementById(id) !== null;
    picture.setAttribute("href", known ? "#" + id : "#none");
    card.classList.toggle("bare", !known);
    text.textContent = texts.get(point);
    card.hidden = false;
    const box = card.getBoundingClientRect();
    const room = document.documentElement;
    const x = Math.min(event.clientX + 14, room.clientWidth - box.width - 8);
    const y = event.clientY + 14 + box.height > room.clientHeight ? event.clientY - box.height - 14 : event.clientY + 14;
    card.style.left = Math.max(8, x) + "px";
    card.style.top = Math.max(8, y) + "px";
  };
  for (const chart of document.querySelectorAll("[data-points]")) {
    chart.addEventListener("pointerover", show);
    chart.addEventListener("pointerdown", show);
    chart.addEventListener("pointerleave", () => { card.hidden = true; });
  }
  document.addEventListener("scroll", () => { card.hidden = true; }, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") card.hidden = true; });
})();
