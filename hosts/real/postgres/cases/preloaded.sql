-- The postmaster has loaded the library and made a call. This backend was forked from it.
DO $$
BEGIN
    ASSERT rust_state(2) = (SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)::bigint);
    ASSERT rust_state(2) <> pg_backend_pid();
    ASSERT rust_worker() = pg_backend_pid();
END $$;
