// <button data-copy="id of an element" data-done="Copied">: copies the element's text and says so.

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.lastChild.textContent = button.dataset.done;
    } catch {
      // Without a secure connection the browser forbids it: select the text, so that Ctrl+C takes it.
      getSelection().selectAllChildren(source);
    }
  });
}
