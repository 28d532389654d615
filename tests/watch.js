// Opens every page of a site in a frame and leaves what it found as JSON: width that overflows,
// what reaches beyond the screen, texts that are too pale, texts of figures that are cut, links
// within the page that lead nowhere. WIDTH and PAGES are filled in.
const wait = (frame, address) =>
  new Promise(done => { frame.onload = done; frame.src = address });
const colour = text => text.match(/[\d.]+/g).map(Number);
const light = ([r, g, b]) => {
  [r, g, b] = [r, g, b].map(v => {
    v /= 255;
    return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 });
  return .2126 * r + .7152 * g + .0722 * b };
const ground = (node, view) => {
  if (!node) return [255, 255, 255];
  const [r, g, b, a = 1] = colour(view.getComputedStyle(node).backgroundColor);
  if (a == 1) return [r, g, b];
  const below = ground(node.parentElement, view);
  return [r, g, b].map((v, i) => a * v + (1 - a) * below[i]) };
const contrast = (node, view) => {
  const inside = node.closest("svg"), own = view.getComputedStyle(node);
  const two = [colour(own[inside ? "fill" : "color"]), ground(node, view)];
  const [a, b] = two.map(light).sort((x, y) => x - y);
  return (b + .05) / (a + .05) };
const says = node => [...node.childNodes].some(one => one.nodeType == 3 && one.textContent.trim());
const look = async () => {
  const found = [], frame = document.createElement("iframe");
  frame.width = WIDTH; frame.height = 900; document.body.append(frame);
  for (const address of PAGES) {
    await wait(frame, address);
    const page = frame.contentDocument, view = frame.contentWindow, root = page.documentElement;
    for (const one of page.querySelectorAll("details")) one.open = true;
    for (const one of page.querySelectorAll("#codes")) one.checked = true;
    const texts = [...page.querySelectorAll("body *")].filter(
      node => says(node) && !["style", "title"].includes(node.tagName.toLowerCase()));
    const pale = texts.filter(node => contrast(node, view) < 4.5).map(
      node => node.tagName + node.textContent.slice(0, 40));
    const far = [...page.querySelectorAll("body *")].filter(
      node => node.getBoundingClientRect().right > root.clientWidth + 1 && !node.closest("pre")).map(
      node => node.tagName + node.textContent.trim().slice(0, 40));
    const cut = [...page.querySelectorAll("figure svg")].flatMap(svg => {
      const all = svg.getBoundingClientRect();
      return [...svg.querySelectorAll("text")].filter(text => {
        const one = text.getBoundingClientRect();
        return one.left < all.left - 2 || one.right > all.right + 2 || one.top < all.top - 2
          || one.bottom > all.bottom + 2 }).map(text => text.textContent) });
    const missing = [...page.querySelectorAll("a[href^='#']")].filter(
      one => !page.getElementById(one.hash.slice(1)));
    found.push({
      address, wide: root.scrollWidth - root.clientWidth, texts: texts.length,
      shown: root.clientWidth, pale: pale.slice(0, 5), missing: missing.length,
      far: far.slice(0, 5), cut: cut.slice(0, 5) }) }
  document.body.innerHTML = "";
  document.body.append(Object.assign(
    document.createElement("pre"), {id: "found", textContent: JSON.stringify(found)})) };
look();
