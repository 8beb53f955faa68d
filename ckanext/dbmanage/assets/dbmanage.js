/* Copy buttons and menus; every page works without. */
(function () {
  'use strict';
  // menus are <details>: Escape closes one and gives the focus back, a click elsewhere closes
  function menus(each) { document.querySelectorAll('details.dbm-menu[open]').forEach(each); }
  document.addEventListener('keydown', function (event) {
    if (event.key !== 'Escape') return;
    menus(function (menu) {
      var inside = menu.contains(document.activeElement);
      menu.open = false;
      if (inside) menu.querySelector('summary').focus();
    });
  });
  document.addEventListener('click', function (event) {
    menus(function (menu) { if (!menu.contains(event.target)) menu.open = false; });
  });
  // a second click on a form's button is not a second request
  document.addEventListener('submit', function (event) {
    if (event.target.closest('.dbm') && event.target.dataset.dbmSent) event.preventDefault();
    event.target.dataset.dbmSent = '1';
  });
  var live = document.getElementById('job-live');
  if (live) {
    live.addEventListener('htmx:responseError', function (event) {
      var status = event.detail.xhr.status === 401 ? 403 : event.detail.xhr.status;
      // the site may be away for a look or two while a job switches: the next look tells
      if (status === 503) { event.stopPropagation(); return; }
      var told = document.querySelector('#job-gone [data-dbm-status="' + status + '"]');
      if (!told) return;
      event.stopPropagation();
      live.replaceWith(live.cloneNode(true)); // what is not htmx's own asks no more
      told.hidden = false;
      document.getElementById('job-gone').hidden = false;
    });
    // the rest of the page is of before the job's end; not while somebody types in it
    live.addEventListener('htmx:afterRequest', function (event) {
      if (event.detail.xhr.status !== 286 || !live.hasAttribute('data-dbm-reload')) return;
      if (!document.querySelector('.dbm form :focus, .dbm-menu[open]')) location.reload();
    });
  }
  // a form that may not be sent yet looks whether it may now; what is ticked stays so
  var waits = document.querySelector('form[data-dbm-again]');
  if (waits) document.getElementById('look-again').hidden = true;
  if (waits) setInterval(function () {
    var chosen = new URLSearchParams();
    new FormData(waits).forEach(function (value, name) {
      if (name === 'boxes' || name === 'parts') chosen.append(name, value);
    });
    var url = location.pathname + '?' + chosen;
    fetch(url).then(function (answer) { return answer.ok ? answer.text() : ''; }).then(function (text) {
      var found = new DOMParser().parseFromString(text, 'text/html').querySelector('form.dbm-confirm');
      if (found && found.dataset.dbmAgain !== waits.dataset.dbmAgain) location.replace(url);
    }).catch(function () {});
  }, 10000);
  var errors = document.getElementById('errors');
  if (errors) errors.focus();
  // buttons that copy are shown only here: without this script they do nothing
  document.querySelectorAll('[data-dbm-copy]').forEach(function (button) {
    var source = document.getElementById(button.getAttribute('data-dbm-copy'));
    var label = button.innerHTML, timer;
    // the answer is said, not only shown
    function said() {
      clearTimeout(timer);
      button.textContent = button.getAttribute('data-dbm-copied');
      timer = setTimeout(function () { button.innerHTML = label; }, 2000);
    }
    function old() { // a plain http site has no clipboard API
      var range = document.createRange(), selection = getSelection();
      range.selectNodeContents(source);
      selection.removeAllRanges();
      selection.addRange(range);
      if (document.execCommand('copy')) { selection.removeAllRanges(); said(); }
    }
    button.addEventListener('click', function () {
      if (navigator.clipboard) navigator.clipboard.writeText(source.textContent).then(said, old);
      else old();
    });
    button.setAttribute('aria-live', 'polite');
    button.hidden = false;
  });
})();
