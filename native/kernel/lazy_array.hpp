// A fixed array of zero bytes whose pages take memory when they are first written, for tables that are made for many and
// seldom hold as many.
//
// Owner: who made it. Threading: as a plain array.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <type_traits>

namespace edgeos {

template <class T>
class LazyArray {
  static_assert(std::is_trivially_copyable_v<T>, "elements begin as zero bytes and end without a destructor");

 public:
  explicit LazyArray(size_t size) : size_(size) {
    void* pages = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<T*>(pages);
  }
  ~LazyArray() { munmap(data_, bytes()); }
  LazyArray(const LazyArray&) = delete;
  LazyArray& operator=(const LazyArray&) = delete;

  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  size_t size() const { return size_; }

 private:
  size_t bytes() const { return size_ * sizeof(T); }

  size_t size_;
  T* data_ = nullptr;
};

}  // namespace edgeos
