// Draws the figures described in #figures. Colours of text and grid come from the style sheet.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  for (const [id, figure] of Object.entries(figures)) {
    Plotly.newPlot(id, figure.data, figure.layout, { displayModeBar: false, responsive: true });
  }
})();
