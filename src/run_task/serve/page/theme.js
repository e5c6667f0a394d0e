/* Before anything is drawn: light or dark, as it was chosen the last time. */
(() => {
  let theme = "";
  try {
    theme = localStorage.getItem("run-task-theme") ?? "";
  } catch {
    /* A browser that keeps nothing shows what the system says. */
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
