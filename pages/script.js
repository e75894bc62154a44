'use strict';
for (const t of document.querySelectorAll('time')) {
	const style = { dateStyle: 'long' };
	if ('near' in t.dataset) style.timeStyle = 'short';
	t.textContent = new Intl.DateTimeFormat(t.lang || document.documentElement.lang, style).format(new Date(t.dateTime));
}
const waiting = document.querySelector('[data-again]');
if (waiting) {
	const { again, last, events, to } = waiting.dataset;
	let tries = 0, asking = false;
	const ask = async () => {
		if (asking) return;
		asking = true;
		try {
			const answer = await fetch(again);
			if (!answer.ok) throw answer;
			const page = await answer.text();
			if (!page.includes('data-' + 'again=')) return location.replace(to); // this script is in it, too
		} catch { /* somebody restarts: once more */ }
		asking = false;
		if (++tries === 30) location.replace(last);
	};
	setInterval(ask, 3000);
	let first = true;
	new EventSource(events).onmessage = () => { if (first) first = false; else ask(); };
}
