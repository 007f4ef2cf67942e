// Doubly linked lists whose links lie in the elements: nothing is allocated, and an element leaves from wherever it stands.
//
// Owner: whoever holds the list; not thread-safe. An element is in at most one list through each of its links.
#pragma once

namespace edgeos {

template <class T>
struct Link {
  T* previous = nullptr;
  T* next = nullptr;
};

template <class T, Link<T> T::* L>
class List {
 public:
  T* front() const { return front_; }
  bool empty() const { return front_ == nullptr; }
  static T* next(const T& element) { return (element.*L).next; }

  void push_back(T& element) {
    (element.*L) = {back_, nullptr};
    (back_ != nullptr ? (back_->*L).next : front_) = &element;
    back_ = &element;
  }
  void remove(T& element) {
    Link<T>& link = element.*L;
    (link.previous != nullptr ? (link.previous->*L).next : front_) = link.next;
    (link.next != nullptr ? (link.next->*L).previous : back_) = link.previous;
    link = {};
  }

 private:
  T* front_ = nullptr;
  T* back_ = nullptr;
};

}  // namespace edgeos
