// Typeset the formulas that pymdownx.arithmatex marks: \(…\) in a span, \[…\] in a div.
document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const formula = element.textContent.trim().slice(2, -2);
    katex.render(formula, element, { displayMode: element.tagName === "DIV" });
  }
});
