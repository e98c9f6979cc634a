// What the theme leaves out for readers by keyboard and by ear.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".caption[role=heading]").forEach((each) => each.setAttribute("aria-level", "2"));
  document.querySelector("aside.sidebar-drawer")?.setAttribute("aria-label", "All pages");
  document.querySelector("aside.toc-drawer")?.setAttribute("aria-label", "On this page");
  document.querySelectorAll("pre, .table-wrapper").forEach((each) => each.setAttribute("tabindex", "0"));
  // The search page puts its heading in when it has found something.
  const results = document.querySelector("#search-results");
  const title = () => document.querySelector("h1") ?? results?.querySelector("h2")?.setAttribute("aria-level", "1");
  if (results) new MutationObserver(title).observe(results, { childList: true, subtree: true });
});
