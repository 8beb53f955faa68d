/* Copy buttons; every page works without them, so they are shown only by this. */
(function () {
  'use strict';
  document.querySelectorAll('[data-dbm-copy]').forEach(function (button) {
    button.hidden = false;
  });
  document.addEventListener('click', function (event) {
    var button = event.target.closest('[data-dbm-copy]');
    if (!button) return;
    var source = document.getElementById(button.getAttribute('data-dbm-copy'));
    var was = button.innerHTML;
    // the answer is said, not only shown
    function said() {
      button.setAttribute('aria-live', 'polite');
      button.textContent = button.getAttribute('data-dbm-copied');
      setTimeout(function () { button.innerHTML = was; }, 2000);
    }
    function old() { // a plain http site has no clipboard API
      var range = document.createRange(), selection = getSelection();
      range.selectNodeContents(source);
      selection.removeAllRanges();
      selection.addRange(range);
      if (document.execCommand('copy')) { selection.removeAllRanges(); said(); }
    }
    if (navigator.clipboard) navigator.clipboard.writeText(source.textContent).then(said, old);
    else old();
  });
})();
