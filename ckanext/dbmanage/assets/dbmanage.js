/* Copy buttons; every page works without them, so they are shown only by this. */
(function () {
  'use strict';
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
