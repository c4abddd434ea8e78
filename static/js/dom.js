// Typed look-ups in the document.

/**
 * The first descendant of `root` that matches, checked to be of the expected class.
 * @template {Element} [T=HTMLElement]
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} [type]
 * @returns {T}
 * @throws {TypeError} if nothing matches, or an element of another class.
 */
export function find(root, selector, type) {
  const element = root.querySelector(selector);
  const expected = type ?? HTMLElement;
  if (element instanceof expected) return /** @type {T} */ (element);
  throw new TypeError(`${selector}: expected ${expected.name}, got ${element?.constructor.name ?? "nothing"}`);
}

/**
 * All descendants of `root` that match and are HTML elements.
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {HTMLElement[]}
 */
export function findAll(root, selector) {
  return [...root.querySelectorAll(selector)].filter((element) => element instanceof HTMLElement);
}

/**
 * The closest ancestor (or the element itself) at which an event happened, or null.
 * @param {Event} event
 * @param {string} selector
 * @returns {HTMLElement | null}
 */
export function closest(event, selector) {
  const element = event.target instanceof Element ? event.target.closest(selector) : null;
  return element instanceof HTMLElement ? element : null;
}

/**
 * A copy of the first element in a <template>.
 * @param {ParentNode} root
 * @param {string} selector of the template
 * @returns {HTMLElement}
 */
export function cloneTemplate(root, selector) {
  const { content } = find(root, selector, HTMLTemplateElement);
  return /** @type {HTMLElement} */ (content.firstElementChild?.cloneNode(true));
}
