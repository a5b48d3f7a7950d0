/* A stack allocator for Boost.Context, Coroutine2 and Fiber. It describes its stacks to upcall.
 *
 * Upcalls from these stacks find exact bounds, so they run in place if there is enough room
 * (`min_stack`, 256 KiB by default, so take 512). An overflow is reported with the stack's name,
 * and calls abandoned by longjmp are cleared up.
 *
 *     boost::fibers::fiber(std::allocator_arg, upcall::registered_stack<>(512 << 10), body);
 */
#ifndef UPCALL_REGISTERED_STACK_HPP
#define UPCALL_REGISTERED_STACK_HPP

#include <cstddef>
#include <new>

#include <boost/context/protected_fixedsize_stack.hpp>
#include <upcall.h>

namespace upcall {

/* The bytes of guard pages at the low end of an allocator's stacks. They are not part of the
 * stack. */
template <class Allocator> struct guard_of {
    static std::size_t size() { return 0; }
};

template <class Traits> struct guard_of<boost::context::basic_protected_fixedsize_stack<Traits>> {
    static std::size_t size() { return Traits::page_size(); }
};

template <class Allocator = boost::context::protected_fixedsize_stack> class registered_stack : Allocator {
    using context = boost::context::stack_context;

    static void *low(const context &stack) {
        return static_cast<char *>(stack.sp) - stack.size + guard_of<Allocator>::size();
    }

  public:
    using typename Allocator::traits_type;
    using Allocator::Allocator;

    context allocate() {
        context stack = Allocator::allocate();
        if (upcall_stack_register(low(stack), stack.size - guard_of<Allocator>::size(), "Boost's") != 0) {
            Allocator::deallocate(stack);
            throw std::bad_alloc();
        }
        return stack;
    }

    /* Frees a stack. A stack with an open call is leaked: freeing it would be worse. */
    void deallocate(context &stack) noexcept {
        if (upcall_stack_unregister(low(stack)) == 0)
            Allocator::deallocate(stack);
    }
};

} // namespace upcall

#endif
