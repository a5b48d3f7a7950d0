-- PostgreSQL takes one of upcall's stacks for too deep a stack. So Rust must call its functions on
-- the caller's stack, or by a downcall.
DO $$
BEGIN
    ASSERT rust_check_stack(0) = 0, 'the caller''s';
    ASSERT rust_check_stack(1) = 1, 'a pooled one';
    ASSERT rust_check_stack(2) = 0, 'a pooled one, by a downcall';
END $$;
