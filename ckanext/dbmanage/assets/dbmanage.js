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
  // the site may be away for a look or two while a job switches: the next look tells
  var live = document.getElementById('job-live');
  if (live) live.addEventListener('htmx:responseError', function (event) { event.stopPropagation(); });
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
