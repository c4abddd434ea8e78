// The API reference: Swagger UI, which a classic script has loaded before, in the theme of the page.

const dark = matchMedia("(prefers-color-scheme: dark)");

function applyTheme() {
  const { theme } = document.documentElement.dataset;
  document.documentElement.classList.toggle("dark-mode", theme === "dark" || (theme !== "light" && dark.matches));
}

/** @param {HTMLElement} root */
export function start(root) {
  applyTheme();
  dark.addEventListener("change", applyTheme);
  if (document.readyState === "complete") draw(root);
  else addEventListener("load", () => draw(root), { once: true }); // after the deferred bundle, however slow it loads
}

/** @param {HTMLElement} root */
function draw(root) {
  const { SwaggerUIBundle } = /** @type {any} */ (window);
  SwaggerUIBundle({
    domNode: root,
    url: root.dataset.document,
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    validatorUrl: null, // never asks another host
  });
}
