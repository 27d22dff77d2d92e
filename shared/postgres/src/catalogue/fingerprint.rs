//! The schema's fingerprint: for each class of objects, SHA-256 of the catalogue's text.
//!
//! The text has names instead of object ids, in C order, so that it is the same on a physical copy, after a logical
//! dump, and whatever was done in between. Left out: what extensions bring along (their name and version stand for
//! it), Lifeboat's own schema, and the extension amcheck, which an examination installs on the restore itself.

use dr_core::Result;
use dr_core::proof::frame::SchemaFingerprint;

use super::{FOREIGN_RELATION, FOREIGN_SCHEMA, USER_SCHEMA};
use crate::session::Session;

/// The fingerprint of the session's database.
///
/// # Errors
/// Of the connection or the queries.
pub async fn fingerprint(session: &Session) -> Result<SchemaFingerprint> {
    let mut fingerprint = SchemaFingerprint::new();
    for (class, lines) in classes(session.major()) {
        let sql = format!(
            "SELECT encode(sha256(convert_to(coalesce(string_agg(line, E'\\n' ORDER BY line COLLATE \"C\"), ''), \
             'UTF8')), 'hex') FROM ({lines}) AS lines(line)"
        );
        let rows = session.catalogue_rows("reading the schema", &sql).await?;
        let row = rows.first().ok_or_else(|| crate::text::unexpected("no fingerprint"))?;
        fingerprint.insert(class.to_owned(), row.text(0)?.to_owned());
    }
    Ok(fingerprint)
}

/// SQL: the object `oid` of `catalogue` was not brought by an extension.
fn own(catalogue: &str, oid: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM pg_depend dep WHERE dep.classid = '{catalogue}'::regclass AND dep.objid = {oid} \
         AND dep.deptype = 'e')"
    )
}

/// SQL: a grant list as sorted text. An absent list stands for the defaults.
fn grants(list: &str) -> String {
    format!(
        "coalesce((SELECT string_agg(g::text, ' ' ORDER BY g::text COLLATE \"C\") FROM unnest({list}) AS g), 'default')"
    )
}

/// Each class with the query for its lines.
#[expect(clippy::too_many_lines, reason = "a list of queries, one an entry")]
fn classes(major: u32) -> Vec<(&'static str, String)> {
    let with_class = "(pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace)";
    let of_user = format!(
        "WHERE {USER_SCHEMA} AND {FOREIGN_RELATION} AND c.relpersistence IN ('p', 'u') AND {}",
        own("pg_class", "c.oid")
    );
    let relations = format!("{with_class} {of_user}");
    let name = "quote_ident(n.nspname), quote_ident(c.relname)";
    let nulls = if major >= 15 { "i.indnullsnotdistinct" } else { "false" };
    vec![
        (
            "schemas",
            format!(
                "SELECT concat_ws(' ', quote_ident(n.nspname), n.nspowner::regrole) FROM pg_namespace n \
                 WHERE {USER_SCHEMA} AND {FOREIGN_SCHEMA} AND {}",
                own("pg_namespace", "n.oid")
            ),
        ),
        (
            "extensions",
            "SELECT concat_ws(' ', quote_ident(x.extname), x.extversion, quote_ident(n.nspname)) FROM pg_extension x \
             JOIN pg_namespace n ON n.oid = x.extnamespace WHERE x.extname <> 'amcheck'"
                .to_owned(),
        ),
        (
            "tables",
            format!(
                "SELECT concat_ws(' ', {name}, c.relkind, c.relpersistence, c.relowner::regrole, c.relrowsecurity, \
                   c.relforcerowsecurity, c.relreplident, array_to_string(c.reloptions, ','), \
                   pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid), \
                   (SELECT string_agg(h.inhparent::regclass::text, ',' ORDER BY h.inhseqno) FROM pg_inherits h \
                    WHERE h.inhrelid = c.oid)) \
                 FROM {relations} AND c.relkind IN ('r', 'p', 'm', 'f')"
            ),
        ),
        (
            "columns",
            format!(
                "SELECT concat_ws(' ', {name}, quote_ident(a.attname), row_number() OVER (PARTITION BY c.oid ORDER BY \
                   a.attnum), format_type(a.atttypid, a.atttypmod), a.attnotnull, nullif(a.attidentity, ''), \
                   nullif(a.attgenerated, ''), CASE WHEN a.attcollation <> 0 THEN a.attcollation::regcollation END) \
                 FROM pg_attribute a JOIN {with_class} ON c.oid = a.attrelid {of_user} \
                   AND c.relkind IN ('r', 'p', 'm', 'f', 'v', 'c') AND a.attnum > 0 AND NOT a.attisdropped"
            ),
        ),
        (
            "defaults",
            format!(
                "SELECT concat_ws(' ', {name}, quote_ident(a.attname), pg_get_expr(d.adbin, d.adrelid)) \
                 FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum \
                   JOIN {with_class} ON c.oid = d.adrelid {of_user}"
            ),
        ),
        (
            "types",
            format!(
                "SELECT concat_ws(' ', quote_ident(n.nspname), quote_ident(t.typname), t.typtype, \
                   t.typowner::regrole, CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) END, \
                   t.typnotnull, t.typdefault, CASE WHEN t.typcollation <> 0 THEN t.typcollation::regcollation END, \
                   (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e \
                    WHERE e.enumtypid = t.oid), \
                   (SELECT concat_ws(' ', format_type(r.rngsubtype, NULL), r.rngcollation::regcollation) \
                    FROM pg_range r WHERE r.rngtypid = t.oid)) \
                 FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace \
                 WHERE {USER_SCHEMA} AND {} AND (t.typtype IN ('d', 'e', 'r', 'm') OR t.typtype = 'b' AND t.typelem = 0 \
                   OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_class k WHERE k.oid = t.typrelid AND k.relkind = 'c'))",
                own("pg_type", "t.oid")
            ),
        ),
        (
            "constraints",
            format!(
                "SELECT concat_ws(' ', quote_ident(n.nspname), k.conrelid::regclass, k.contypid::regtype, \
                   quote_ident(k.conname), k.contype, k.convalidated, pg_get_constraintdef(k.oid)) \
                 FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace \
                   LEFT JOIN pg_class c ON c.oid = k.conrelid \
                 WHERE {USER_SCHEMA} AND {} AND k.contype <> 'n' \
                   AND (c.oid IS NULL OR {FOREIGN_RELATION} AND {})",
                own("pg_constraint", "k.oid"),
                own("pg_class", "k.conrelid"),
            ),
        ),
        (
            "indexes",
            format!(
                "SELECT concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisprimary, i.indisreplident, \
                   i.indisclustered, i.indisvalid, {nulls}) \
                 FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE {USER_SCHEMA} AND {FOREIGN_RELATION} AND c.relpersistence IN ('p', 'u') AND {}",
                own("pg_class", "i.indrelid")
            ),
        ),
        (
            "views",
            format!(
                "SELECT concat_ws(' ', {name}, c.relkind, c.relowner::regrole, array_to_string(c.reloptions, ','), \
                   pg_get_viewdef(c.oid)) FROM {relations} AND c.relkind IN ('v', 'm')"
            ),
        ),
        (
            "sequences",
            format!(
                "SELECT concat_ws(' ', {name}, c.relowner::regrole, format_type(s.seqtypid, NULL), s.seqstart, \
                   s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle) \
                 FROM pg_sequence s JOIN {with_class} ON c.oid = s.seqrelid {of_user}"
            ),
        ),
        (
            "functions",
            format!(
                "SELECT concat_ws(' ', p.oid::regprocedure, p.prokind, p.proowner::regrole, CASE WHEN p.prokind = 'a' \
                   THEN (SELECT concat_ws(' ', g.aggtransfn::regproc, g.aggfinalfn::regproc, g.agginitval, \
                     format_type(g.aggtranstype, NULL)) FROM pg_aggregate g WHERE g.aggfnoid = p.oid) \
                   ELSE pg_get_functiondef(p.oid) END) \
                 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {USER_SCHEMA} AND {}",
                own("pg_proc", "p.oid")
            ),
        ),
        (
            "triggers",
            format!(
                "SELECT concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled) FROM pg_trigger t \
                 JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE {USER_SCHEMA} AND {FOREIGN_RELATION} AND NOT t.tgisinternal AND {} \
                 UNION ALL SELECT concat_ws(' ', quote_ident(e.evtname), e.evtevent, e.evtfoid::regprocedure, \
                   e.evtenabled, array_to_string(e.evttags, ',')) FROM pg_event_trigger e WHERE {}",
                own("pg_trigger", "t.oid"),
                own("pg_event_trigger", "e.oid"),
            ),
        ),
        (
            "rules",
            format!(
                "SELECT concat_ws(' ', pg_get_ruledef(r.oid), r.ev_enabled) FROM pg_rewrite r \
                 JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE {USER_SCHEMA} AND {FOREIGN_RELATION} AND r.rulename <> '_RETURN' AND {}",
                own("pg_class", "c.oid")
            ),
        ),
        (
            "policies",
            format!(
                "SELECT concat_ws(' ', {name}, quote_ident(p.polname), p.polcmd, p.polpermissive, \
                   (SELECT string_agg(CASE WHEN r = 0 THEN 'public' ELSE r::regrole::text END, ',' ORDER BY \
                      CASE WHEN r = 0 THEN 'public' ELSE r::regrole::text END COLLATE \"C\") FROM unnest(p.polroles) r), \
                   pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) \
                 FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE {USER_SCHEMA} AND {FOREIGN_RELATION}"
            ),
        ),
        (
            "grants",
            format!(
                "SELECT concat_ws(' ', 'relation', {name}, {}) FROM {relations} AND c.relkind NOT IN ('i', 'I') \
                 UNION ALL SELECT concat_ws(' ', 'schema', quote_ident(n.nspname), {}) FROM pg_namespace n \
                   WHERE {USER_SCHEMA} AND {FOREIGN_SCHEMA} \
                 UNION ALL SELECT concat_ws(' ', 'function', p.oid::regprocedure, {}) FROM pg_proc p \
                   JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {USER_SCHEMA} AND {} \
                 UNION ALL SELECT concat_ws(' ', 'column', a.attrelid::regclass, quote_ident(a.attname), {}) \
                   FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
                   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_SCHEMA} AND {FOREIGN_RELATION} \
                   AND a.attacl IS NOT NULL \
                 UNION ALL SELECT concat_ws(' ', 'by default', d.defaclrole::regrole, d.defaclnamespace::regnamespace, \
                   d.defaclobjtype, {}) FROM pg_default_acl d",
                grants("c.relacl"),
                grants("n.nspacl"),
                grants("p.proacl"),
                own("pg_proc", "p.oid"),
                grants("a.attacl"),
                grants("d.defaclacl"),
            ),
        ),
        (
            "comments",
            format!(
                "SELECT concat_ws(' ', c.oid::regclass, d.objsubid, d.description) FROM pg_description d \
                 JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE d.classoid = 'pg_class'::regclass AND {USER_SCHEMA} AND {FOREIGN_RELATION} AND {}",
                own("pg_class", "c.oid")
            ),
        ),
        (
            "publications",
            "SELECT concat_ws(' ', quote_ident(p.pubname), p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, \
               p.pubtruncate, (SELECT string_agg(r.prrelid::regclass::text, ',' ORDER BY r.prrelid::regclass::text \
               COLLATE \"C\") FROM pg_publication_rel r WHERE r.prpubid = p.oid)) FROM pg_publication p"
                .to_owned(),
        ),
    ]
}
