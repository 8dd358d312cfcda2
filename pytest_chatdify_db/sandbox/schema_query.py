"""What the sandbox asks of the database's schema, in one query; ``catalog`` reads the answer.

The rule about functions: a volatile one may write. PostgreSQL lets others change nothing by themselves (section 36.7),
but they may call one that does; so whatever stands in the definition of one of the database's own counts as called.
``edges`` are such mentions and the dependencies of views, policies, domains and casts; ``reached`` is what leads to a
function that may write, by however many of them.
"""

from __future__ import annotations

from typing import Final

#: Yields rows (sort, name, tables):
#: "deferrable" or "deferred" constraints with the names of the tables whose changes they check (there is no SET
#: CONSTRAINTS ... DEFAULT, and ALL DEFERRED would also defer those that are INITIALLY IMMEDIATE: hence the list);
#: functions that may write;
#: "named" are those that can be called without parentheses, as an attribute of a row, and what calls one by itself:
#: views, tables with a policy, domains and types that are cast to;
#: "reaction" if a trigger, a rule or a volatile function of a default or a check may do more than a statement says;
#: "trigger" if a function is called at COMMIT; "operator" if an operator calls a function that may write.
QUERY: Final = """
WITH RECURSIVE functions AS (
  SELECT p.oid, p.proname, p.provolatile = 'v' AS is_volatile,
         p.pronargs = 1 AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.reltype = p.proargtypes[0]) AS takes_row,
         CASE WHEN p.provolatile <> 'v' AND p.prokind = 'f' AND l.lanname IN ('sql', 'plpgsql')
              THEN pg_catalog.lower(pg_catalog.pg_get_functiondef(p.oid)) END AS definition
    FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    LEFT JOIN pg_catalog.pg_depend d
      ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
   WHERE p.oid >= 16384 AND (d.objid IS NULL OR p.provolatile = 'v')
), words AS (
  SELECT DISTINCT f.oid, w.word
    FROM functions f, pg_catalog.regexp_split_to_table(f.definition, '[^[:alnum:]_]+') AS w (word)
), names AS (
  SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass AS classid, f.oid AS objid, pg_catalog.lower(f.proname) AS name
    FROM functions f
   UNION
  SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, pg_catalog.lower(c.relname)
    FROM pg_catalog.pg_class c
   WHERE c.oid >= 16384 AND c.relkind IN ('v', 'r', 'p')
   UNION
  SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, pg_catalog.lower(t.typname)
    FROM pg_catalog.pg_type t
   WHERE t.oid >= 16384 AND t.typtype <> 'c' AND t.typelem = 0
), edges AS (
  SELECT d.refclassid, d.refobjid, 'pg_catalog.pg_class'::pg_catalog.regclass AS classid, r.ev_class AS objid
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
   WHERE r.oid >= 16384 AND d.refobjid <> r.ev_class
   UNION
  SELECT d.refclassid, d.refobjid, 'pg_catalog.pg_class'::pg_catalog.regclass, p.polrelid
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_policy p ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = d.objid
   UNION
  SELECT d.refclassid, d.refobjid, 'pg_catalog.pg_type'::pg_catalog.regclass, c.contypid
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_constraint c ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.oid = d.objid
   WHERE c.contypid <> 0
   UNION
  SELECT d.refclassid, d.refobjid, 'pg_catalog.pg_type'::pg_catalog.regclass, c.casttarget
    FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_cast c ON d.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass AND c.oid = d.objid
   UNION
  SELECT n.classid, n.objid, 'pg_catalog.pg_proc'::pg_catalog.regclass, w.oid
    FROM words w JOIN names n ON n.name = w.word
   UNION
  SELECT n.classid, n.objid, 'pg_catalog.pg_proc'::pg_catalog.regclass, f.oid
    FROM names n JOIN functions f ON n.name ~ '[^[:alnum:]_]' AND pg_catalog.strpos(f.definition, n.name) > 0
), reached AS (
  SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass AS classid, f.oid AS objid
    FROM functions f
   WHERE f.definition IS NULL OR f.definition ~ '\\mexecute\\M|\\mlo_|\\mlowrite'
   UNION
  SELECT e.classid, e.objid FROM reached r JOIN edges e ON e.refclassid = r.classid AND e.refobjid = r.objid
), writers AS (
  SELECT f.*
    FROM functions f
    JOIN reached r ON r.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND r.objid = f.oid
), uses AS (
  SELECT d.classid, f.is_volatile
    FROM functions f
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = f.oid
)
SELECT CASE WHEN c.condeferred THEN 'deferred' ELSE 'deferrable' END,
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.conname),
       (SELECT pg_catalog.string_agg(r.relname, E'\\t')
          FROM pg_catalog.pg_class r WHERE r.oid IN (c.conrelid, c.confrelid))
  FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
 WHERE c.condeferrable
 UNION SELECT 'function', pg_catalog.lower(f.proname), '' FROM writers f
 UNION SELECT 'named', pg_catalog.lower(f.proname), '' FROM writers f WHERE f.takes_row
 UNION SELECT 'named', pg_catalog.lower(c.relname), '' FROM pg_catalog.pg_class c
         JOIN reached r ON r.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND r.objid = c.oid
 UNION SELECT 'named', pg_catalog.lower(t.typname), '' FROM pg_catalog.pg_type t
         JOIN reached r ON r.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND r.objid = t.oid
 UNION SELECT 'trigger', c.conname, '' FROM pg_catalog.pg_constraint c WHERE c.condeferrable AND c.contype = 't'
 UNION SELECT 'reaction', 'any', ''
  WHERE EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal)
     OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.oid >= 16384 AND r.rulename <> '_RETURN')
     OR EXISTS (SELECT FROM uses u
                 WHERE u.is_volatile AND u.classid IN ('pg_catalog.pg_attrdef'::pg_catalog.regclass,
                                                       'pg_catalog.pg_constraint'::pg_catalog.regclass))
 UNION SELECT 'operator', o.oprname, '' FROM pg_catalog.pg_operator o JOIN writers f ON f.oid = o.oprcode
"""
