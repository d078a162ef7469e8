"""The user's pages: Django templates and htmx, no build step; everything works without JavaScript, too.

A new page is
- a view in a module by its subject (`tokens.py`, `keys.py`, …), wrapped in `base.page` (sign-in, 404s, refusals in
  words) or, if it is a button, in `base.action` (POST, then back to a page);
- a line in `urls.py` (namespace `web`; addresses begin with `/my/`);
- a template that extends `web/base.html` and fills `title` and `main`; forms include `web/auth/form.html`;
- if it belongs into the navigation, a line in `context.SECTIONS`; the view says its name as `section` in the context.
Lists page with `paging.Pages`. No inline script or style (the Content-Security-Policy refuses them): classes are in
`jobs/static/web/site.css`, behaviour that htmx's attributes cannot say in `jobs/static/web/site.js`.
"""
