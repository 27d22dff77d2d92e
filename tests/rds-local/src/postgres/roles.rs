//! Roles and rights as RDS for PostgreSQL has them, as far as proving a backup meets them.

use super::running::Running;
use crate::host::MasterUser;
use crate::host::error::Error;

/// Quotes an identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string literal, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

pub(super) fn set_up(server: &Running, master: &MasterUser) -> Result<(), Error> {
    let major = server.cluster().toolchain().major();
    let (name, password) = (identifier(&master.name), literal(&master.password));
    let mut statements = vec![
        "CREATE ROLE rds_superuser NOLOGIN".to_owned(),
        "CREATE ROLE rds_iam NOLOGIN".to_owned(),
        "CREATE ROLE rds_password NOLOGIN".to_owned(),
        "GRANT pg_monitor, pg_signal_backend TO rds_superuser WITH ADMIN OPTION".to_owned(),
        format!("CREATE ROLE {name} LOGIN CREATEROLE CREATEDB PASSWORD {password} VALID UNTIL 'infinity'"),
        format!("GRANT rds_superuser TO {name}"),
        format!("ALTER DATABASE postgres OWNER TO {name}"),
        format!("ALTER DATABASE template1 OWNER TO {name}"),
    ];
    if major >= 15 {
        statements.push("GRANT pg_checkpoint TO rds_superuser WITH ADMIN OPTION".to_owned());
    }
    if major >= 16 {
        // CREATEROLE no longer lets its holder grant any role. RDS does not make rds_superuser a member of
        // pg_read_all_data, but the master user may grant it.
        for role in ["pg_read_all_data", "pg_write_all_data"] {
            statements
                .push(format!("GRANT {role} TO rds_superuser WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"));
        }
        for role in ["rds_superuser", "rds_iam", "rds_password"] {
            statements
                .push(format!("GRANT {role} TO {name} WITH ADMIN TRUE, INHERIT {}", role == "rds_superuser"));
        }
    }
    // On RDS, rds_superuser may create the extension. Here it is there already, in every database made from
    // template1, because stock PostgreSQL wants a superuser for it; CREATE EXTENSION IF NOT EXISTS succeeds.
    let amcheck = "CREATE EXTENSION amcheck; \
        DO $$ DECLARE f regprocedure; BEGIN \
          FOR f IN SELECT objid::regprocedure FROM pg_depend \
            WHERE refclassid = 'pg_extension'::regclass AND classid = 'pg_proc'::regclass AND deptype = 'e' \
              AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'amcheck') \
          LOOP EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO rds_superuser WITH GRANT OPTION', f); END LOOP; \
        END $$";
    server.sql("postgres", &statements.join(";\n"))?;
    server.sql("postgres", amcheck)?;
    server.sql("template1", amcheck)?;
    server.sql("postgres", "CREATE DATABASE rdsadmin")?;
    server.sql("postgres", "REVOKE CONNECT, TEMPORARY ON DATABASE rdsadmin FROM PUBLIC")?;
    if let Some(database) = &master.database {
        server.sql("postgres", &format!("CREATE DATABASE {} OWNER {name}", identifier(database)))?;
    }
    Ok(())
}
