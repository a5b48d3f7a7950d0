-- Rust waits for the backend's own threads, started on demand.
DO $$
BEGIN
    FOR i IN 1..20 LOOP
        ASSERT rust_wait(i) = i AND rust_wait_interruptibly(i) = i;
    END LOOP;
    ASSERT rust_worker() = pg_backend_pid();
    ASSERT rust_query('SELECT rust_query(''SELECT rust_wait_interruptibly(5)'') + rust_wait(5)') = 10;
    ASSERT rust_state(0) = 0;
END $$;
