// Two things that HTML cannot do alone: a score's popover opens on hover and focus, and an advisory is modal.
"use strict";

const GRACE_MS = 150; // to move the pointer from the score into its popover

// Beside the score where there is room, so that it and its row stay in sight; else under or over it.
const place = (button, popover) => {
  const at = button.getBoundingClientRect(), own = popover.getBoundingClientRect(), gap = 6;
  const { clientWidth: width, clientHeight: height } = document.documentElement;
  const within = (wanted, most) => Math.max(gap, Math.min(wanted, most - gap));
  let left = at.left - own.width - gap, top = within(at.top - gap, height - own.height);
  if (left < gap) {
    left = within(at.right - own.width, width - own.width);
    const below = at.bottom + gap, above = at.top - own.height - gap;
    top = below + own.height <= height ? below : Math.max(above, gap);
  }
  Object.assign(popover.style, { inset: "auto", margin: "0", left: `${left}px`, top: `${top}px` });
};

for (const button of document.querySelectorAll(".score-button")) {
  const popover = document.getElementById(button.getAttribute("popovertarget"));
  let leaving;
  const show = () => { clearTimeout(leaving); if (!popover.matches(":popover-open")) popover.showPopover(); };
  const hide = () => { if (popover.matches(":popover-open")) popover.hidePopover(); };
  const leave = () => { clearTimeout(leaving); leaving = setTimeout(hide, GRACE_MS); };
  popover.addEventListener("toggle", (event) => {
    const open = event.newState === "open";
    button.toggleAttribute("data-open", open);
    if (open) place(button, popover);
  });
  for (const each of [button, popover]) {
    each.addEventListener("mouseenter", show);
    each.addEventListener("mouseleave", leave);
  }
  button.addEventListener("focus", show);
  // A popover that is too long for the window can be scrolled by keyboard, so the focus may go into it.
  for (const each of [button, popover]) {
    each.addEventListener("focusout", ({ relatedTarget: next }) => {
      if (next !== button && !popover.contains(next)) hide();
    });
  }
}

const advisory = document.getElementById("advisory");
if (advisory) {
  advisory.close();
  advisory.showModal();
  // It is interruptive: Escape does not answer it.
  advisory.addEventListener("cancel", (event) => event.preventDefault());
  advisory.addEventListener("keydown", (event) => { if (event.key === "Escape") event.preventDefault(); });
}
