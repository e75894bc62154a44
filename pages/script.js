'use strict';
for (const t of document.querySelectorAll('time')) {
	const style = { dateStyle: 'long' };
	if ('near' in t.dataset) style.timeStyle = 'short';
	t.textContent = new Intl.DateTimeFormat(t.lang || document.documentElement.lang, style).format(new Date(t.dateTime));
}
const waiting = document.querySelector('[data-again]');
if (waiting) {
	const again = () => location.replace(waiting.dataset.again);
	setTimeout(again, 3000);
	let first = true;
	new EventSource(waiting.dataset.events).onmessage = () => { if (first) first = false; else again(); };
}
