const box = document.querySelector('dialog'), big = box.querySelector('img'), says = box.querySelector('p');
let shown;
const show = picture => {
  shown = picture;
  big.src = picture.src;
  const caption = picture.closest('figure').querySelector('figcaption');
  says.textContent = [...caption.childNodes].filter(n => n.nodeName !== 'DETAILS').map(n => n.textContent).join(' ');
  if (!box.open) box.showModal();
};
document.querySelectorAll('figure img').forEach(picture => {
  picture.tabIndex = 0;
  picture.onclick = () => show(picture);
  picture.onkeydown = event => { if (event.key === 'Enter') show(picture); };
});
box.onclick = () => box.close();
// The neighbours appear in the same place: the eye sees at once what changes.
box.onkeydown = event => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  const row = [...(shown.closest('.grid') || document).querySelectorAll('figure img')];
  show(row[(row.indexOf(shown) + step + row.length) % row.length]);
};
